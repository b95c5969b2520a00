package notify

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"tidemark/sinks"
)

// SlackConfig has either the URL of an incoming webhook, or a bot token and a channel. URL and token are secrets.
type SlackConfig struct {
	WebhookURL string
	Token      string // with the scope chat:write
	Channel    string // id or name
	API        string // empty: https://slack.com/api
	Out        *Outbound
}

// SlackSender posts messages to a channel. Slack has no documented idempotency key: a message that it accepted without an
// answer is posted again.
type SlackSender struct {
	SlackConfig
	to *url.URL
}

// NewSlack checks the settings.
func NewSlack(c SlackConfig) (*SlackSender, error) {
	if (c.WebhookURL == "") == (c.Token == "") || (c.Token == "") != (c.Channel == "") {
		return nil, errors.New("a Slack channel needs the URL of an incoming webhook, or a bot token and a channel")
	}
	to, err := c.Out.parse(cmp.Or(c.WebhookURL, cmp.Or(c.API, "https://slack.com/api")+"/chat.postMessage"))
	return &SlackSender{c, to}, err
}

// Send posts the message's text, without formatting: names may have any character.
func (s *SlackSender) Send(ctx context.Context, m *Message) error {
	return s.call(ctx, s.to, map[string]any{
		"channel": s.Channel, "text": slackText(m.Text), "mrkdwn": false, "unfurl_links": false, "unfurl_media": false,
	})
}

// Check asks Slack whether it knows the token. An incoming webhook is sent an empty message, which Slack rejects if it
// knows the URL.
func (s *SlackSender) Check(ctx context.Context) error {
	if s.Token != "" {
		return s.call(ctx, s.to.JoinPath("../auth.test"), map[string]any{})
	}
	err := s.call(ctx, s.to, map[string]any{})
	if _, ok := errors.AsType[*sinks.Rejected](err); ok {
		return nil
	}
	return err
}

// Errors by which Slack says who has to act: nobody can, or the operator. After all others the message is retried.
var (
	slackRejects = strings.Fields(`msg_too_long msg_blocks_too_long no_text invalid_blocks invalid_blocks_format
		invalid_payload missing_text_or_fallback_or_attachments`)
	slackSettings = strings.Fields(`invalid_auth not_authed account_inactive token_revoked token_expired missing_scope
		no_permission channel_not_found not_in_channel is_archived channel_is_archived restricted_action access_denied
		ekm_access_denied org_login_required team_access_not_granted no_service no_service_id no_team team_disabled
		action_prohibited invalid_token posting_to_general_channel_denied user_not_found`)
)

func (s *SlackSender) call(ctx context.Context, to *url.URL, body map[string]any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	var headers []string
	if s.Token != "" {
		headers = []string{"Authorization", "Bearer " + s.Token}
	}
	a, err := post(ctx, s.Out.client, to, text, headers...)
	if err != nil {
		return err
	}
	result := struct {
		OK    bool
		Error string
	}{a.status == 200, strings.TrimSpace(string(a.body))}
	if s.Token != "" && a.status == 200 {
		result.OK = false
		if err := json.Unmarshal(a.body, &result); err != nil {
			return fmt.Errorf("read the answer of Slack: %w", err)
		}
	}
	failed := a.failed("Slack")
	switch code := result.Error; {
	case result.OK:
		return nil
	case a.status == 429, code == "ratelimited", code == "rate_limited", code == "message_limit_exceeded":
		return &sinks.Later{Pause: max(a.pause, time.Second), Err: failed}
	case slices.Contains(slackRejects, code):
		return &sinks.Rejected{Reason: "Slack does not accept the message", Answer: code}
	case slices.Contains(slackSettings, code), a.status/100 == 4:
		return fmt.Errorf("correct the token, the webhook's URL or the channel of Slack: %w", failed)
	case a.status != 200:
		return failed
	}
	return &refused{failed, false}
}

// slackText escapes what Slack reads as a link or a mention, and cuts the text where Slack would.
func slackText(text string) string {
	const most, cut = 40_000, "\n… (cut)"
	var b strings.Builder
	length, limit := 0, 0
	for _, c := range text {
		escaped, size := string(c), 1
		if entity := map[rune]string{'&': "&amp;", '<': "&lt;", '>': "&gt;"}[c]; entity != "" {
			escaped, size = entity, len(entity)
		}
		b.WriteString(escaped)
		if length += size; length <= most-utf8.RuneCountInString(cut) {
			limit = b.Len()
		}
	}
	if length <= most {
		return b.String()
	}
	return b.String()[:limit] + cut
}
