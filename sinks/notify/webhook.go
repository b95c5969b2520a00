package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tidemark/codecs"
)

// A webhookSender posts messages to a URL, signed as Standard Webhooks specifies. Each has a signature of every key, so
// that a receiver can change from one to the next.
type webhookSender struct {
	to   *url.URL
	keys [][]byte
	out  *Outbound
}

var errGone = errors.New("the endpoint answered 410 Gone: it wants no more messages")

func newWebhook(c *Webhook, out *Outbound) (*webhookSender, error) {
	to, err := out.parse(c.URL)
	if err != nil {
		return nil, err
	}
	secrets, err := c.Secret.Read()
	if err != nil {
		return nil, err
	}
	w := &webhookSender{to: to, out: out}
	for secret := range strings.FieldsSeq(secrets) {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil || len(key) < 24 || len(key) > 64 {
			return nil, errors.New("the secret of a webhook: want whsec_ and 24 to 64 random bytes in base64")
		}
		w.keys = append(w.keys, key)
	}
	return w, nil
}

// Check refuses a host whose address is not allowed. One that does not answer now may later.
func (w *webhookSender) Check(ctx context.Context) error { return w.out.check(ctx, w.to) }

// Send posts {"type", "timestamp", "data"}: the event, its time and the notice's JSON. Of a digest the type is
// "digest", the time is that of its last event, and data is a list. The webhook-id is a hash of the message's id.
func (w *webhookSender) Send(ctx context.Context, m *Message) error {
	var notices []json.RawMessage
	for _, n := range m.Notices {
		notice, err := codecs.Notice{}.Encode(n)
		if err != nil {
			return err
		}
		notices = append(notices, notice)
	}
	last := m.Notices[len(notices)-1]
	kind, data := "digest", any(notices)
	if !m.Digest {
		kind, data = last.GetEvent(), notices[0]
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // as in the topic
	err := encoder.Encode(map[string]any{"type": kind, "timestamp": time.UnixMicro(last.GetAt()).UTC(), "data": data})
	if err != nil {
		return err
	}
	body := text.Bytes()
	id, now := "msg_"+hashOf(m.ID), strconv.FormatInt(time.Now().Unix(), 10)
	a, err := w.out.post(ctx, w.to, body, http.Header{
		"Webhook-Id": {id}, "Webhook-Timestamp": {now}, "Webhook-Signature": {w.sign(id, now, body)},
	})
	if err != nil {
		return err
	}
	failed := a.failed("the endpoint")
	switch a.status {
	case 410:
		return errGone
	case 408, 425, 429, 502, 503, 504: // it, or what is before it, lacks capacity
		return failed
	case 400, 413, 415, 422:
		return &refused{failed, true}
	}
	if a.status/100 != 2 { // a redirect too: it is not followed
		return &refused{failed, false}
	}
	return nil
}

func (w *webhookSender) sign(id, timestamp string, body []byte) string {
	var signatures []string
	for _, key := range w.keys {
		mac := hmac.New(sha256.New, key)
		_, _ = fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body) // it never fails
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(signatures, " ")
}
