package doctor

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
)

// Webhooks signs and verifies as package ingress does. The command brings it, because no operators' tool imports a
// role.
type Webhooks struct {
	Scheme  string        // its name
	Timed   bool          // the scheme signs the time
	Window  time.Duration // how far a signed time may be off
	Path    string        // of the endpoint
	Secrets int           // how many there are

	// Sign signs with the secret of that index. Beyond the last it uses one that nobody has.
	Sign   func(secret int, body []byte, now time.Time) http.Header
	Verify func(header http.Header, body []byte, now time.Time) error
}

const reportBug = "this is a bug in tidemark: report it"

// signature signs a sample, which is never sent, and verifies it as the webhook endpoint does.
func (c Config) signature(context.Context) []Finding {
	if c.NoWebhooks.Status != "" {
		return []Finding{c.NoWebhooks}
	}
	body := []byte(`{"event":"workspace_storage_file_added","event_id":"doctor","workspace_id":"doctor"}`)
	w, now := c.Webhooks, time.Now()
	for i := range w.Secrets {
		signed := w.Sign(i, body, now)
		if err := w.Verify(signed, body, now); err != nil {
			return one(Failure, fmt.Sprintf("secret %d: a sample signed with it is refused: %v", i+1, err), reportBug)
		}
		if w.Verify(signed, append(body, ' '), now) == nil {
			return one(Failure, fmt.Sprintf("secret %d: a modified body is accepted", i+1), reportBug)
		}
		if w.Timed && w.Verify(signed, body, now.Add(w.Window+time.Second)) == nil {
			return one(Failure, fmt.Sprintf("secret %d: an old request is accepted", i+1), reportBug)
		}
	}
	what := fmt.Sprintf("%d active, scheme %s: a signed sample is accepted, a modified one is refused", w.Secrets,
		w.Scheme)
	if w.Timed {
		what += fmt.Sprintf(", and one whose time is more than %v off", w.Window)
	} else {
		what += "; the scheme signs no time, so clocks do not matter"
	}
	return one(OK, what, "")
}

// urlChecks are the checks of the processes whose URLs were given.
func (c Config) urlChecks() []check {
	var checks []check
	if c.IngressURL != "" {
		checks = append(checks, check{"ingress", c.ingress})
	}
	for _, address := range c.ReadyURLs {
		checks = append(checks, check{"readiness", func(ctx context.Context) []Finding { return ready(ctx, address) }})
	}
	return checks
}

// ingress posts a signed body that is no event. The signature is checked first: a refusal of the body means that it was
// accepted, and nothing is written. Without secrets the request still shows whether an ingress listens there.
func (c Config) ingress(ctx context.Context) []Finding {
	if c.Webhooks == nil {
		return []Finding{c.NoWebhooks}
	}
	address, body, secrets := withPath(c.IngressURL, c.Webhooks.Path), []byte(`{}`), c.Webhooks.Secrets
	var found []Finding
	for i := range max(1, secrets) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
		if err != nil {
			return one(Failure, err.Error(), "correct --ingress-url")
		}
		request.Header = c.Webhooks.Sign(i, body, time.Now())
		status, f := c.askIngress(request, fmt.Sprintf("secret %d of %d", i+1, secrets))
		if secrets == 0 && status == http.StatusUnauthorized {
			f = Finding{Status: OK, What: address + ": reachable; without a secret it is not known whether it " +
				"accepts the sender's signature"}
		}
		found = append(found, f)
	}
	return found
}

// withPath adds the path to a URL that has none.
func withPath(address, path string) string {
	if u, err := url.Parse(address); err == nil && strings.Trim(u.Path, "/") == "" {
		u.Path = path
		return u.String()
	}
	return address
}

// maxSkew is how far the clocks may be apart without a warning: well within the window of a signature's time.
const maxSkew = 30 * time.Second

// askIngress returns the status of an ingress's answer, 0 if no ingress answered.
func (c Config) askIngress(request *http.Request, secret string) (status int, f Finding) {
	where := request.URL.Redacted()
	begin := time.Now()
	status, header, body, err := exchange(request)
	if err != nil {
		return 0, Finding{
			Status: Failure, What: fmt.Sprintf("%s: %v", where, err),
			Fix: "start `tidemark ingest`, or correct --ingress-url; " +
				"if only the provider cannot reach it, look at the proxy and the firewall before it",
		}
	}
	var problem struct{ Code, Detail string }
	if json.Unmarshal(body, &problem) != nil || problem.Code == "" {
		return 0, Finding{
			Status: Failure, What: fmt.Sprintf("%s: answers %d, but not like tidemark", where, status),
			Fix: "correct --ingress-url: another program listens there",
		}
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		if skew := date.Sub(begin).Abs(); skew > maxSkew {
			return status, Finding{
				Status: Warning, Fix: "synchronize the clocks (NTP)",
				What: fmt.Sprintf("%s: its clock and the one here are %v apart; a signature's time may be %v off",
					where, skew.Round(time.Second), c.Webhooks.Window),
			}
		}
	}
	switch status {
	case http.StatusBadRequest: // for the event, which is checked after the signature
		f = Finding{Status: OK, What: fmt.Sprintf("%s: accepts signatures of %s, in %v", where, secret,
			time.Since(begin).Round(time.Millisecond))}
	case http.StatusUnauthorized:
		f = Finding{
			Status: Failure, What: fmt.Sprintf("%s: refuses the signature of %s: %s: %s", where, secret,
				problem.Code, problem.Detail),
			Fix: "give the ingress, the sender and the doctor the same secret and --webhook-scheme; after a change " +
				"restart the ingress",
		}
	case http.StatusServiceUnavailable:
		f = Finding{
			Status: Failure, What: fmt.Sprintf("%s: %s: %s", where, problem.Code, problem.Detail),
			Fix: "look at its /readyz: it names the reason",
		}
	default:
		f = Finding{
			Status: Warning, What: fmt.Sprintf("%s: answers %d %s: %s", where, status, problem.Code, problem.Detail),
			Fix: "look at the log of the ingress",
		}
	}
	return status, f
}

// ready asks a process for /readyz.
func ready(ctx context.Context, address string) []Finding {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, withPath(address, "/readyz"), nil)
	if err != nil {
		return one(Failure, err.Error(), "correct --ready-url")
	}
	where := request.URL.Redacted()
	status, _, body, err := exchange(request)
	if err != nil {
		return one(Failure, fmt.Sprintf("%s: %v", where, err), "start the process, or correct --ready-url: it is "+
			"the address of --admin-addr")
	}
	if status == http.StatusOK {
		return one(OK, where+": ready", "")
	}
	var answer struct{ Reasons map[string]string }
	if json.Unmarshal(body, &answer) != nil || len(answer.Reasons) == 0 {
		return one(Failure, fmt.Sprintf("%s: answers %d", where, status), "correct --ready-url: it is the address "+
			"of --admin-addr")
	}
	var reasons []string
	for _, name := range sortedKeys(answer.Reasons) {
		reasons = append(reasons, name+": "+answer.Reasons[name])
	}
	return one(Failure, where+": "+strings.Join(reasons, "; "), "fix the reason it gives; its log says more")
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
