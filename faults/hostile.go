package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"tidemark/e2e/provider"
	"tidemark/e2e/rig"
)

// hostile sends slow, huge, deeply nested and malformed requests beside the ordinary webhooks.
func hostile(ctx context.Context, r *run) (figures, error) {
	all := attacks() // before anything is measured: building them takes more CPU than sending them
	calm, end := r.traffic.watch()
	defer end()
	if err := rig.Sleep(ctx, 3*time.Second); err != nil {
		return nil, err
	}
	end()
	target := strings.TrimPrefix(r.ingress[0].URL, "http://")
	w, stop := r.traffic.watch()
	defer stop()
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for range 400 { // a slow loris: headers that never end
		c, err := net.DialTimeout("tcp", target, time.Second)
		if err != nil {
			break // the server limits its connections
		}
		// the server may close it at any time
		_, _ = fmt.Fprintf(c, "POST /webhook/fastio HTTP/1.1\r\nHost: x\r\nX-A: ")
		open = append(open, c)
	}
	sent, refused := 0, map[int]int{}
	for begin := time.Now(); time.Since(begin) < r.between(5*time.Second, 10*time.Second); {
		for _, attack := range all {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.ingress[0].URL+"/webhook/fastio",
				bytes.NewReader(attack.body))
			if err != nil {
				return nil, err
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Fastio-Signature", provider.Sign(secret, attack.body))
			if attack.encoding != "" {
				req.Header.Set("Content-Encoding", attack.encoding)
			}
			sent++
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				refused[0]++ // the connection was closed
				continue
			}
			_ = resp.Body.Close() // only the status is asked for
			refused[resp.StatusCode]++
			if resp.StatusCode < 400 || resp.StatusCode >= 500 {
				return nil, fmt.Errorf("%s is answered %d", attack.name, resp.StatusCode)
			}
		}
	}
	stop()
	return figures{
		"attacks": float64(sent), "200 p99 ms": p99(w.ok), "200 p99 ms before": p99(calm.ok),
		"5xx": float64(w.refused), "RSS MB": r.ingress[0].Usage().RSSMB,
	}, nil
}

type attack struct {
	name, encoding string
	body           []byte
}

func attacks() []attack {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 32<<20)) // to memory: cannot fail
	_ = z.Close()
	head := `{"event":"workspace_storage_file_added","workspace_id":"w","event_id":"attack","x":`
	return []attack{
		{"deep JSON", "", []byte(head + strings.Repeat("[", 50_000) + strings.Repeat("]", 50_000) + "}")},
		{"a gzip bomb", "gzip", bomb.Bytes()},
		{"a huge body", "", append([]byte(head+`"`), bytes.Repeat([]byte("a"), 16<<20)...)},
		{"a name twice", "", []byte(head + `1,"x":2}`)},
		{"no text", "", []byte("\xff\xfe")},
	}
}
