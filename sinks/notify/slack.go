package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"tidemark/sinks"
)

// A slackSender posts messages to a channel. Slack has no documented idempotency key: a message that it accepted
// without an answer is posted again.
type slackSender struct {
	to             *url.URL
	token, channel string // empty for an incoming webhook
	out            *Outbound
}

func newSlack(c *Slack, out *Outbound) (*slackSender, error) {
	s, to, err := &slackSender{channel: c.Channel, out: out}, "https://slack.com/api/chat.postMessage", error(nil)
	if c.Token.Given() {
		s.token, err = c.Token.Read()
	} else {
		to, err = c.WebhookURL.Read()
	}
	if err != nil {
		return nil, err
	}
	s.to, err = out.parse(to)
	return s, err
}

// Send posts the message's text, without formatting: names may have any character.
func (s *slackSender) Send(ctx context.Context, m *Message) error {
	return s.call(ctx, s.to, map[string]any{
		"channel": s.channel, "text": slackText(m.Text), "mrkdwn": false, "unfurl_links": false, "unfurl_media": false,
	})
}

// Check asks Slack whether it knows the token. An incoming webhook is sent an empty message, which Slack rejects if it
// knows the URL.
func (s *slackSender) Check(ctx context.Context) error {
	if s.token != "" {
		return s.call(ctx, s.to.JoinPath("../auth.test"), map[string]any{})
	}
	err := s.call(ctx, s.to, map[string]any{})
	if _, ok := errors.AsType[*sinks.Rejected](err); ok {
		return nil
	}
	return err
}

// slackRejects are the errors by which Slack says that the message is at fault. After all others it is sent again: most
// are about the token, the URL or the channel, to be corrected by the operator.
var slackRejects = strings.Fields(`msg_too_long msg_blocks_too_long no_text invalid_blocks invalid_blocks_format
	invalid_payload missing_text_or_fallback_or_attachments`)

func (s *slackSender) call(ctx context.Context, to *url.URL, body map[string]any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	header := http.Header{}
	if s.token != "" {
		header.Set("Authorization", "Bearer "+s.token)
	}
	a, err := s.out.post(ctx, to, text, header)
	if err != nil {
		return err
	}
	var result struct {
		OK    bool
		Error string
	}
	if s.token == "" {
		result.OK, result.Error = a.status == 200, strings.TrimSpace(string(a.body))
	} else if err := json.Unmarshal(a.body, &result); err != nil && a.status == 200 {
		return fmt.Errorf("read the answer of Slack: %w", err)
	}
	failed := a.failed("Slack")
	switch code := result.Error; {
	case a.status == 200 && result.OK:
		return nil
	case a.status == 429, code == "ratelimited", code == "rate_limited", code == "message_limit_exceeded":
		return &sinks.Later{Pause: max(a.pause, time.Second), Err: failed}
	case slices.Contains(slackRejects, code):
		return &sinks.Rejected{Reason: "Slack does not accept the message", Answer: code}
	case a.status != 200 && a.status/100 != 4:
		return failed
	}
	return &refused{fmt.Errorf("correct the token, the webhook's URL or the channel of Slack: %w", failed), false}
}

var slackEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// slackText escapes what Slack reads as a link or a mention, and cuts the text where Slack would.
func slackText(text string) string {
	const most, cut = 40_000, "\n… (cut)"
	runes := []rune(slackEscape.Replace(text))
	if len(runes) <= most {
		return string(runes)
	}
	runes = runes[:most-len([]rune(cut))]
	if at := len(runes) - 4; slices.Contains(runes[at:], '&') && runes[len(runes)-1] != ';' { // an entity is cut
		runes = runes[:at+slices.Index(runes[at:], '&')]
	}
	return string(runes) + cut
}
