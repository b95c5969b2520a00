// Package notify tells people and programs what happened: it has the rules that select notices and say when messages
// may be sent, the messages, and the channels that send them.
//
// Each rule is a subscription with a consumer group of its own. So a channel that hangs, quiet hours, a digest or a
// rate limit delay no other rule, and a disabled rule keeps its offsets. Rules and messages are pure functions.
package notify

import (
	"cmp"
	_ "embed"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"

	"tidemark/rulefile"
)

// Rules are a rules file.
type Rules struct {
	Channels []Channel `yaml:"channels"`
	Users    []User    `yaml:"users"`
	Rules    []Rule    `yaml:"rules"` // when loaded, a rule of users is here once for each of them, named rule-user
	Warnings []string  // what is valid, but probably not meant
}

// A Channel is a destination: one of the pointers is set.
type Channel struct {
	Name    string    `yaml:"name"`
	Slack   *Slack    `yaml:"slack"`
	Email   *Email    `yaml:"email"`
	Webhook *Webhook  `yaml:"webhook"`
	Log     *struct{} `yaml:"log"` // the process log
}

// Slack is an incoming webhook; or a channel and a bot token with the scope chat:write.
type Slack struct {
	WebhookURL rulefile.Secret `yaml:"webhook_url"`
	Channel    string          `yaml:"channel"`
	Token      rulefile.Secret `yaml:"token"`
}

// Email is sent by the server of --smtp-url. If that refuses one of the recipients, none gets the message.
type Email struct {
	To   []string `yaml:"to"`
	From string   `yaml:"from"`
}

// Webhook is a URL and a secret, or several separated by spaces while they are rotated.
type Webhook struct {
	URL    string          `yaml:"url"`
	Secret rulefile.Secret `yaml:"secret"`
}

// A User is a person whom rules can name. Preferences that are set replace those of the rule.
type User struct {
	Name     string        `yaml:"name"`
	Channel  string        `yaml:"channel"`
	ID       string        `yaml:"id"` // as actor: users get no messages about what they did
	Digest   time.Duration `yaml:"digest"`
	Quiet    *QuietHours   `yaml:"quiet_hours"`
	Disabled bool          `yaml:"disabled"`
}

// A Rule is one subscription. A notice must match each list: one of its patterns, and none with a leading !. An absent
// list matches everything.
type Rule struct {
	Name       string          `yaml:"name"`
	Channel    string          `yaml:"channel"`
	Users      []string        `yaml:"users"`
	Events     []rulefile.Glob `yaml:"events"`
	Paths      []rulefile.Glob `yaml:"paths"`
	Workspaces []string        `yaml:"workspaces"`
	Actors     []string        `yaml:"actors"`
	Digest     time.Duration   `yaml:"digest"` // how long notices are collected for one message of a workspace
	Quiet      *QuietHours     `yaml:"quiet_hours"`
	Rate       Rate            `yaml:"rate"`
	Children   bool            `yaml:"children"` // also what a change of a folder does to each of its entries
	Late       *bool           `yaml:"late"`     // only events that are late, or only those that are not; absent: both
	Disabled   bool            `yaml:"disabled"`
}

// Load reads and checks a rules file. The error has a line for each fault: file, line, setting, and what to do.
func Load(path string) (*Rules, error) {
	r := new(Rules)
	f, err := rulefile.Load(path, r)
	if err != nil {
		return nil, err
	}
	r.Warnings = f.Warnings()
	return r, f.Err()
}

// Check checks names and references, and replaces each rule of users by one for each of them.
func (r *Rules) Check(f *rulefile.File, _ string) {
	var channels, users, names []string
	for i, c := range r.Channels {
		channels = f.Name(channels, fmt.Sprintf("channels[%d].name", i), c.Name)
	}
	for i, u := range r.Users {
		users = f.Name(users, fmt.Sprintf("users[%d].name", i), u.Name)
		f.Declared(fmt.Sprintf("users[%d].channel", i), u.Channel, channels)
	}
	if len(r.Rules) == 0 {
		f.Failf("rules", "want at least one rule")
	}
	var expanded []Rule
	add := func(at string, rule Rule) {
		if rule.Digest > 7*24*time.Hour {
			f.Failf(at, "a digest of %v is too long: want 168h at most", rule.Digest)
		}
		expanded = append(expanded, rule)
	}
	for i, rule := range r.Rules {
		at := fmt.Sprintf("rules[%d]", i)
		names = f.Name(names, at+".name", rule.Name)
		if rule.Channel != "" {
			f.Declared(at+".channel", rule.Channel, channels)
			add(at, rule)
		}
		for j, name := range rule.Users {
			if at := fmt.Sprintf("%s.users[%d]", at, j); f.Declared(at, name, users) {
				own := rule.of(r.Users[slices.Index(users, name)])
				names = f.Name(names, at, own.Name)
				add(at, own)
			}
		}
	}
	r.Rules = expanded
}

// of returns the rule for one user.
func (r Rule) of(u User) Rule {
	r.Name, r.Channel, r.Users = r.Name+"-"+u.Name, u.Channel, nil
	r.Digest, r.Quiet, r.Disabled = cmp.Or(u.Digest, r.Digest), cmp.Or(u.Quiet, r.Quiet), r.Disabled || u.Disabled
	if u.ID != "" {
		r.Actors = append(slices.Clone(r.Actors), "!"+u.ID)
	}
	return r
}

//go:embed events.txt
var eventList string

// Check warns of an event that is none of Fast.io's: there may be others, so it is no error.
func (r *Rule) Check(f *rulefile.File, at string) {
	f.OneOf(at, "channel and users", r.Channel != "", len(r.Users) > 0)
	known := strings.Fields(eventList)
	for i, glob := range r.Events {
		if pattern := strings.TrimPrefix(string(glob), "!"); pattern != "" && !slices.ContainsFunc(known, glob.Match) {
			f.Warnf(fmt.Sprintf("%s.events[%d]", at, i), "%q matches no event that is known%s", pattern,
				rulefile.Nearest(pattern, known))
		}
	}
}

// Check checks that the channel has one kind.
func (c *Channel) Check(f *rulefile.File, at string) {
	f.OneOf(at, "slack, email, webhook and log", c.Slack != nil, c.Email != nil, c.Webhook != nil, c.Log != nil)
}

// Check checks what no single setting can.
func (s *Slack) Check(f *rulefile.File, at string) {
	if s.WebhookURL.Given() == s.Token.Given() || s.Token.Given() != (s.Channel != "") {
		f.Failf(at, "want webhook_url_file or webhook_url_env; or channel, and token_file or token_env")
	}
}

// Check checks the addresses.
func (e *Email) Check(f *rulefile.File, at string) {
	for _, address := range append(slices.Clone(e.To), e.From) {
		if _, err := mail.ParseAddress(address); err != nil || len(e.To) == 0 {
			f.Failf(at, "want to, a list of addresses, and from, an address like a@example.com; found %q", address)
		}
	}
}

// Check checks the URL and the secret.
func (w *Webhook) Check(f *rulefile.File, at string) {
	if _, err := parseURL(w.URL); err != nil {
		f.Failf(at+".url", "%v", err)
	}
	w.Secret.Check(f, at, "secret")
}
