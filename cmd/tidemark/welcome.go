package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"tidemark/ingress"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/telemetry"
)

// A progress prints the progress of dev's start.
type progress struct {
	w     io.Writer
	begin time.Time
	mu    sync.Mutex // topics and checks report from other goroutines
}

func newProgress(w io.Writer) *progress { return &progress{w: w, begin: time.Now()} }

func (p *progress) say(what, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// progress is only informative
	_, _ = fmt.Fprintf(p.w, "%6.1f s  %-10s  %s\n", time.Since(p.begin).Seconds(), what, text)
}

// How often readiness is polled, and how often the reasons of failing checks are repeated.
const (
	pollEvery   = 50 * time.Millisecond
	remindEvery = 5 * time.Second
)

// awaitReady prints each check as it passes, and returns true once all do, or false if ctx ends before.
func (p *progress) awaitReady(ctx context.Context, readiness *telemetry.Readiness) bool {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	passed := map[string]bool{}
	reminded := time.Now()
	for {
		waiting := 0
		remind := time.Since(reminded) >= remindEvery
		for _, s := range readiness.States() {
			switch {
			case s.Err == nil && !passed[s.Check]:
				passed[s.Check] = true
				p.say(s.Check, "ready")
			case s.Err != nil:
				waiting++
				if passed[s.Check] = false; remind {
					p.say(s.Check, "waiting: "+s.Err.Error())
				}
			}
		}
		if waiting == 0 {
			return true
		}
		if remind {
			reminded = time.Now()
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}

// A welcome is the introduction that dev prints once it is ready.
type welcome struct {
	webhooks, api, admin string // URLs
	brokers              []string
	partitions           int
	embedded             bool
	archive              string // URL; empty: there is none
	tokens               bool   // the query API needs one
	signer               signer
}

// print writes the addresses, an example to paste, and the line "ready", which scripts wait for.
func (w welcome) print(out io.Writer) error {
	var b, table bytes.Buffer
	fmt.Fprintf(&table, "\nPage\t%s/\nWebhooks\t%s\nQuery API\t%s/v1/status\nMetrics\t%s/metrics\n", w.api, w.webhooks,
		w.api, w.admin)
	brokers := strings.Join(w.brokers, ",")
	if w.embedded {
		brokers += "  (embedded: for development; acknowledged records survive a crash of the process, not of the " +
			"machine)"
	}
	fmt.Fprintf(&table, "Kafka\t%s\n", brokers)
	if w.archive != "" {
		fmt.Fprintf(&table, "Archive\t%s  (Parquet)\n", w.archive)
	}
	if w.signer.generated != "" {
		fmt.Fprintf(&table, "Secret\t%s  (kept in %s)\n", w.signer.generated, w.signer.path)
	} else {
		fmt.Fprintf(&table, "Secret\tas given\n")
	}
	if err := align(&b, &table); err != nil {
		return err
	}
	fmt.Fprintf(&b, "\nSend a webhook, and look at the file:\n\n  %s\n  %s\n\nready\n", w.example(), w.lookup())
	_, err := out.Write(b.Bytes())
	return err
}

// The example has no time, so its signature in the scheme fastio never expires, and curl alone can send it.
const (
	exampleWorkspace = "123"
	exampleFile      = "2hello"
	exampleID        = "evt_hello"
	signatureHeader  = "Fastio-Signature"
	exampleRest      = `"name":"hello.txt","path":"/hello.txt","size":11,"mime":"text/plain"}`
)

func (w welcome) example() string {
	secret, ok := w.exampleSecret()
	if !ok || w.signer.scheme.Name() != ingress.Fastio { // the other schemes sign the time, so a signature expires
		return "tidemark send --url " + w.webhooks
	}
	body := fmt.Sprintf(`{"event":"workspace_storage_file_added","workspace_id":%q,"event_id":%q,"object_id":%q,`+exampleRest,
		exampleWorkspace, exampleID, exampleFile)
	headers := ingress.Sign(w.signer.scheme, secret, []byte(body), exampleID, time.Time{})
	return fmt.Sprintf("curl -sS %s -H %s -d %s", shellWord(w.webhooks),
		shellWord(signatureHeader+": "+headers.Get(signatureHeader)), shellWord(body))
}

// exampleSecret returns a secret that may sign events of the example's workspace.
func (w welcome) exampleSecret() (ingress.Secret, bool) {
	for _, s := range w.signer.secrets {
		if s.Workspace() == "" || s.Workspace() == exampleWorkspace {
			return s, true
		}
	}
	return ingress.Secret{}, false
}

// lookup waits for the first event of the example's partition, because it may be pasted together with the webhook.
func (w welcome) lookup() string {
	first := tidemarkv1.Position{Partition: kafka.Partition(exampleWorkspace, w.partitions)}
	command := "curl -sS "
	if w.tokens {
		command += `-H "Authorization: Bearer $` + tokenVariable + `" `
	}
	return command +
		shellWord(w.api+"/v1/workspaces/"+exampleWorkspace+"/files/"+exampleFile+"?at_least="+first.Text())
}

// dialable returns an address at which a local client reaches a listener, which may be on every interface.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil { // not possible for the address of a listener
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
