// Package notify sends notices to people and programs: Slack, e-mail, webhooks, browsers.
package notify

import tidemarkv1 "tidemark/proto/tidemark/v1"

// A Message is what a channel sends: one notice, or the notices of a digest.
type Message struct {
	ID      string               // the op id; of a digest, that of its first notice and their number
	Rule    string               //
	Notices []*tidemarkv1.Notice // at least one, of one workspace, in order
	Subject string               // one line
	Text    string               // plain text
	HTML    string
	Raw     []byte // the notice's JSON as in fastio-notify (of a digest: a JSON array)
}
