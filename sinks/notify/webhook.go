package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A WebhookSender posts messages to a URL, signed as Standard Webhooks specifies.
type WebhookSender struct {
	url  *url.URL
	keys [][]byte
	out  *Outbound
}

// NewWebhook checks the URL and the secrets. Each message is signed with every secret, so that a receiver can change
// from one to the next.
func NewWebhook(to string, secrets []string, out *Outbound) (*WebhookSender, error) {
	at, err := out.parse(to)
	w := &WebhookSender{url: at, out: out}
	for _, secret := range secrets {
		key, invalid := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if invalid != nil || len(key) < 24 || len(key) > 64 {
			w.keys = nil
			break
		}
		w.keys = append(w.keys, key)
	}
	if err == nil && len(w.keys) == 0 {
		err = errors.New("a webhook needs secrets: each whsec_ and 24 to 64 random bytes in base64")
	}
	return w, err
}

// Check refuses a host whose address is not allowed. One that does not answer now may later.
func (w *WebhookSender) Check(ctx context.Context) error { return w.out.check(ctx, w.url) }

// Send posts {"type", "timestamp", "data"}: the event, its time and the notice's JSON. The webhook-id is a hash of the
// op id.
func (w *WebhookSender) Send(ctx context.Context, m *Message) error {
	kind, at := m.Notices[0].GetEvent(), time.UnixMicro(m.Notices[0].GetAt()).UTC()
	if len(m.Notices) > 1 {
		kind = "tidemark.digest"
	}
	body, err := json.Marshal(map[string]any{"timestamp": at, "type": kind})
	if err != nil {
		return err
	}
	body = fmt.Appendf(body[:len(body)-1], `,"data":%s}`, m.Raw)
	id, now := "msg_"+hashOf(m.ID), strconv.FormatInt(time.Now().Unix(), 10)
	a, err := post(ctx, w.out.client, w.url, body,
		"webhook-id", id, "webhook-timestamp", now, "webhook-signature", w.sign(id, now, body))
	if err != nil {
		return err
	}
	switch a.status {
	case 410:
		return errGone
	case 408, 425, 429, 502, 503, 504: // it, or what is before it, lacks capacity
		return a.failed("the endpoint")
	case 400, 413, 415, 422:
		return &refused{a.failed("the endpoint"), true}
	}
	if a.status/100 != 2 { // a redirect too: it is not followed
		return &refused{a.failed("the endpoint"), false}
	}
	return nil
}

func (w *WebhookSender) sign(id, timestamp string, body []byte) string {
	var signatures []string
	for _, key := range w.keys {
		mac := hmac.New(sha256.New, key)
		_, _ = fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body) // it never fails
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(signatures, " ")
}
