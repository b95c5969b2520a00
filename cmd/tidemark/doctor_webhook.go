package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tidemark/ingress"
)

// signatureSample is a body that is signed and never sent.
const signatureSample = `{"event":"workspace_storage_file_added","event_id":"doctor","workspace_id":"doctor"}`

// signatureChecks sign a sample and verify it as the webhook endpoint does.
func (c *doctorCommand) signatureChecks() []check {
	return []check{{"signature", func(context.Context) []finding {
		scheme, err := c.scheme()
		if err != nil {
			return []finding{{Status: failing, What: err.Error(), Mend: "correct --webhook-scheme"}}
		}
		secrets, err := c.secretsOrDevs(scheme, c.Data)
		if errors.Is(err, errNoSecrets) {
			return []finding{{Status: warning, What: "not checked: " + errNoSecrets.Error(), Mend: "give the doctor the secrets of the ingress"}}
		}
		if err != nil { // also those that are too short, in quotes or of another scheme's form
			return []finding{{Status: failing, What: err.Error(), Mend: "correct it, or make a secret of 32 random bytes or more, for example with `openssl rand -hex 32`, and give the sender the same"}}
		}
		return checkSignatures(scheme, secrets, time.Now())
	}}}
}

func checkSignatures(scheme ingress.Scheme, secrets []ingress.Secret, now time.Time) []finding {
	body := []byte(signatureSample)
	for i, secret := range secrets {
		signed := ingress.Sign(scheme, secret, body, "doctor", now)
		if err := ingress.Verify(scheme, secrets, signed, body, now); err != nil {
			return []finding{{Status: failing, What: fmt.Sprintf("secret %d: a sample signed with it is refused: %v", i+1, err), Mend: "this is a fault of tidemark: report it"}}
		}
		if ingress.Verify(scheme, secrets, signed, append(body, ' '), now) == nil {
			return []finding{{Status: failing, What: fmt.Sprintf("secret %d: a changed body is taken", i+1), Mend: "this is a fault of tidemark: report it"}}
		}
		late := now.Add(ingress.Window + time.Second)
		if scheme.Timed() && ingress.Verify(scheme, secrets, signed, body, late) == nil {
			return []finding{{Status: failing, What: fmt.Sprintf("secret %d: an old request is taken", i+1), Mend: "this is a fault of tidemark: report it"}}
		}
	}
	what := fmt.Sprintf("%d active, scheme %s: a signed sample is taken, a changed one refused", len(secrets), scheme.Name())
	if scheme.Timed() {
		what += fmt.Sprintf(", and one whose time is more than %v off", ingress.Window)
	} else {
		what += "; the scheme signs no time, so clocks do not matter"
	}
	return []finding{{Status: fine, What: what}}
}

// urlChecks ask the processes that were named.
func (c *doctorCommand) urlChecks() []check {
	var checks []check
	if c.IngressURL != "" {
		checks = append(checks, check{"ingress", c.ingress})
	}
	for _, address := range c.ReadyURL {
		checks = append(checks, check{"readiness", func(ctx context.Context) []finding { return []finding{ready(ctx, address)} }})
	}
	return checks
}

// ingress posts a signed body that is no event: who refuses it for that has taken the signature, and nothing is written.
func (c *doctorCommand) ingress(ctx context.Context) []finding {
	scheme, err := c.scheme()
	if err != nil {
		return []finding{{Status: failing, What: err.Error(), Mend: "correct --webhook-scheme"}}
	}
	secrets, err := c.secretsOrDevs(scheme, c.Data)
	if err != nil {
		secrets = []ingress.Secret{{}} // one that nobody has: it still tells whether an ingress is there
	}
	body := []byte(`{}`)
	var found []finding
	for i, secret := range secrets {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, webhookURL(c.IngressURL), bytes.NewReader(body))
		if err != nil {
			return []finding{{Status: failing, What: err.Error(), Mend: "correct --ingress-url"}}
		}
		request.Header = ingress.Sign(scheme, secret, body, "doctor", time.Now())
		found = append(found, judgeIngress(request, fmt.Sprintf("secret %d of %d", i+1, len(secrets))))
	}
	if err != nil && found[0].Status == failing && found[0].unsigned {
		found[0] = finding{Status: fine, What: webhookURL(c.IngressURL) + ": reachable; whether it takes the sender's signature is not known without a secret"}
	}
	return found
}

func webhookURL(address string) string {
	if u, err := url.Parse(address); err == nil && strings.Trim(u.Path, "/") == "" {
		u.Path = ingress.Path
		return u.String()
	}
	return address
}

// maxSkew is how far the clocks may be apart before it is told: well within what a signature's time may be off.
const maxSkew = 30 * time.Second

func judgeIngress(request *http.Request, secret string) finding {
	where := request.URL.Redacted()
	begin := time.Now()
	status, header, body, err := exchange(request)
	if err != nil {
		return finding{Status: failing, What: fmt.Sprintf("%s: %v", where, err), Mend: "start `tidemark ingest`, or correct --ingress-url; if only the provider cannot reach it, look at the proxy and the firewall before it"}
	}
	var problem struct{ Code, Detail string }
	if json.Unmarshal(body, &problem) != nil || problem.Code == "" {
		return finding{Status: failing, What: fmt.Sprintf("%s: answers %d, and not as tidemark does", where, status), Mend: "correct --ingress-url: something else listens there"}
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		if skew := date.Sub(begin).Abs(); skew > maxSkew {
			return finding{Status: warning, What: fmt.Sprintf("%s: its clock and the one here are %v apart; a signature's time may be %v off", where, skew.Round(time.Second), ingress.Window), Mend: "set the clocks (NTP)"}
		}
	}
	switch status {
	case http.StatusBadRequest: // the event was looked at, which is after the signature
		return finding{Status: fine, What: fmt.Sprintf("%s: takes signatures of %s, in %v", where, secret, time.Since(begin).Round(time.Millisecond))}
	case http.StatusUnauthorized:
		return finding{Status: failing, unsigned: true, What: fmt.Sprintf("%s: refuses the signature of %s: %s: %s", where, secret, problem.Code, problem.Detail), Mend: "give the ingress, the sender and the doctor the same secret and --webhook-scheme; after a change restart the ingress"}
	case http.StatusServiceUnavailable:
		return finding{Status: failing, What: fmt.Sprintf("%s: %s: %s", where, problem.Code, problem.Detail), Mend: "look at its /readyz: it names the reason"}
	}
	return finding{Status: warning, What: fmt.Sprintf("%s: answers %d %s: %s", where, status, problem.Code, problem.Detail), Mend: "look at the log of the ingress"}
}

// ready asks a process whether it is.
func ready(ctx context.Context, address string) finding {
	if u, err := url.Parse(address); err == nil && strings.Trim(u.Path, "/") == "" {
		u.Path = "/readyz"
		address = u.String()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return finding{Status: failing, What: err.Error(), Mend: "correct --ready-url"}
	}
	where := request.URL.Redacted()
	status, _, body, err := exchange(request)
	if err != nil {
		return finding{Status: failing, What: fmt.Sprintf("%s: %v", where, err), Mend: "start the process, or correct --ready-url: it is the address of --admin-addr"}
	}
	if status == http.StatusOK {
		return finding{Status: fine, What: where + ": ready"}
	}
	var answer struct{ Reasons map[string]string }
	if json.Unmarshal(body, &answer) != nil || len(answer.Reasons) == 0 {
		return finding{Status: failing, What: fmt.Sprintf("%s: answers %d", where, status), Mend: "correct --ready-url: it is the address of --admin-addr"}
	}
	var reasons []string
	for _, part := range sortedKeys(answer.Reasons) {
		reasons = append(reasons, part+": "+answer.Reasons[part])
	}
	return finding{Status: failing, What: where + ": " + strings.Join(reasons, "; "), Mend: "mend the reason it gives; its log says more"}
}

// exchange sends a request and reads a short answer, both within 5 s.
func exchange(request *http.Request) (status int, header http.Header, body []byte, err error) {
	client := &http.Client{Timeout: 5 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		if broken, ok := errors.AsType[*url.Error](err); ok {
			err = broken.Err
		}
		return 0, nil, nil, err
	}
	body, err = io.ReadAll(io.LimitReader(response.Body, 64<<10))
	return response.StatusCode, response.Header, body, errors.Join(err, response.Body.Close())
}
