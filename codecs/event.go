package codecs

import (
	"bytes"
	"fmt"
	"slices"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

const (
	// MaxID is the maximum length of an id, in bytes.
	MaxID   = 256
	maxText = 4 << 10 // of a field of the state, in bytes
)

// earliestTime is 2000-01-01: an earlier time means that the sender's clock was not set.
const earliestTime = 946684800_000000

// ParseEvent decodes one value of the events topic, or the body of a webhook. The event's payload aliases value.
//
// Names are case-sensitive. The event, event_id, the scope and the object, if there is one, must be well-formed in
// every spelling that the sender used. Ids are strings, because many JSON readers round long numbers. Any other field
// that cannot be read counts as absent and is listed in Unreadable: one of an unexpected type, a time in an unknown
// form, a size that is not an integer from 0 to 2^63-1. Null, an empty string and a time before 2000 count as absent.
//
// A received_at in the JSON is used; the caller sets RecordedAt and Replayed. Errors are *EventError.
func ParseEvent(value []byte) (*tidemarkv1.Event, error) {
	if value == nil {
		return nil, &EventError{Reason: ReasonNullValue, Detail: "an event needs a value: send a JSON object"}
	}
	var d draft
	if err := d.scan(value); err != nil {
		return nil, explain(value, err)
	}
	for _, check := range [...]func() *EventError{d.identify, d.place, d.describe} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return d.event(value), nil
}

// A text is the value that was found for one slot.
type text struct {
	raw     []byte
	kind    byte // see scanner.kind; 0: no value was found
	rank    uint8
	escaped bool // raw is not unescaped yet
	lone    bool // it has a lone surrogate, which becomes U+FFFD
}

func (t *text) decode() {
	if t.escaped {
		t.raw, t.escaped = appendUnescaped(nil, t.raw), false
	}
}

// A draft is an event while it is parsed.
type draft struct {
	texts [lastText + 1]text
	// wrongObject is the kind of the object's id if that is not a string.
	wrongObject byte
	// unread has a bit for each slot with a value that could not be read.
	unread uint64

	size, occurred, received rankedNumber
	scope, sent              text
}

// A rankedNumber is an optional number. rank is that of the spelling that it was found under.
type rankedNumber struct {
	n    int64
	set  bool
	rank uint8
}

func (d *draft) scan(value []byte) error {
	var s scanner
	s.init(value)
	for s.open(); s.next(); {
		known, kind := lookup(s.name, s.hash), s.kind
		raw := s.value()
		if known == nil || s.err != nil || kind == 'n' {
			continue
		}
		t := text{raw: raw, kind: kind, escaped: kind == '"' && s.escaped, lone: kind == '"' && s.lone}
		for i, at := range known.at {
			if at != none {
				t.rank = known.rank[i]
				d.take(at, t)
			}
		}
	}
	return s.end()
}

func (d *draft) take(at slot, t text) {
	switch {
	case at < atObject:
		d.texts[at] = t
	case t.kind == '"' && len(t.raw) == 0: // absent
	case at == atReceived:
		if us, ok := t.time(); ok && ValidTime(us) {
			d.received.take(us, t.rank)
		}
	case at == atSize:
		if n, ok := t.size(); ok {
			d.size.take(n, t.rank)
		} else {
			d.unread |= 1 << at
		}
	case at == atOccurred:
		if us, ok := t.time(); !ok {
			d.unread |= 1 << at
		} else if us >= earliestTime {
			d.occurred.take(us, t.rank)
		}
	case t.kind != '"':
		if at == atObject {
			d.wrongObject = t.kind
		} else {
			d.unread |= 1 << at
		}
	case d.texts[at].kind == 0 || t.rank < d.texts[at].rank:
		d.texts[at] = t
	}
}

func (i *rankedNumber) take(n int64, rank uint8) {
	if !i.set || rank < i.rank {
		*i = rankedNumber{n, true, rank}
	}
}

// size reads a number, or the text of one.
func (t *text) size() (n int64, ok bool) {
	if t.kind != '"' && t.kind != '0' {
		return 0, false
	}
	t.decode()
	return parseSize(t.raw)
}

// time may return one before 1970.
func (t *text) time() (us int64, ok bool) {
	switch t.kind {
	case '"':
		t.decode()
		return readTime(t.raw)
	case '0':
		us, ok = parseUnix(t.raw)
		return us, ok && us <= maxTime
	}
	return 0, false
}

// unreadable returns the names of the fields of which no spelling could be read, sorted.
func (d *draft) unreadable() (names []string) {
	if d.unread == 0 {
		return nil
	}
	for i, name := range optional {
		at := atName + slot(i)
		read := at == atSize && d.size.set || at == atOccurred && d.occurred.set ||
			at <= lastText && d.texts[at].kind != 0
		if d.unread&(1<<at) != 0 && !read {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// identify checks the event's name and its id.
func (d *draft) identify() *EventError {
	if _, err := d.agree("event",
		"send the name of what happened as a string, for example workspace_storage_file_added",
		atEvent, atEventTypeCamel, atEventType); err != nil {
		return err
	}
	d.canonical()
	_, err := d.agree("event_id", "send the event's id as a string; a retry must carry the same one", atEventID,
		atEventIDCamel)
	return err
}

// canonical uses the canonical name that the ingress gave the sender's event. Only the ingress writes it, so a
// malformed one is ignored.
func (d *draft) canonical() {
	t, own := &d.texts[atCanonical], &d.texts[atEvent]
	if t.kind != '"' || len(t.raw) == 0 {
		return
	}
	if t.decode(); wantID("event", *t) == nil && !bytes.Equal(t.raw, own.raw) {
		d.sent, *own = *own, *t
	}
}

// agree returns the value of the slots, which must all have the same well-formed id, and stores it in the first of
// them. advice is the error's detail when none of them has a value; if it is empty, that is no error.
func (d *draft) agree(field, advice string, at ...slot) (found text, err *EventError) {
	for _, slot := range at {
		t := &d.texts[slot]
		if t.kind == 0 {
			continue
		}
		if err := wantString(field, t.kind); err != nil {
			return text{}, err
		}
		t.decode()
		if found.kind != 0 && !bytes.Equal(found.raw, t.raw) {
			return text{}, badField(field, "two spellings of it carry different values, %.40q and %.40q: send one",
				found.raw, t.raw)
		}
		found = *t
	}
	if found.kind == 0 {
		if advice != "" {
			return text{}, missingField(field, advice)
		}
		return text{}, nil
	}
	if len(found.raw) == 0 {
		return text{}, badField(field, "must not be empty")
	}
	if err := wantID(field, found); err != nil {
		return text{}, err
	}
	d.texts[at[0]] = found
	return found, nil
}

// place checks the scope and the object. If an event has several scopes, a workspace comes before a share and a share
// before an organisation: an event of a share may carry its workspace too. profile_type says what profile_id is; the
// default is a workspace.
func (d *draft) place() *EventError {
	profile := d.profileKind()
	for _, kind := range &scopes {
		at := kind.slots[:2]
		if profile == kind.profile {
			at = kind.slots[:]
		}
		found, err := d.agree("workspace_id", "", at...)
		if err != nil {
			return err
		}
		if found.kind != 0 {
			d.scope = found
			return d.object()
		}
	}
	found, err := d.agree("workspace_id",
		"send the id of the workspace as a string, or share_id, org_id, or profile_id with profile_type",
		atProfile, atProfileCamel)
	if err != nil {
		return err
	}
	d.scope = found
	return d.object()
}

// scopes are what an event may belong to, in order of precedence.
var scopes = [...]struct {
	profile string // its profile_type
	slots   [4]slot
}{
	{"workspace", [4]slot{atWorkspace, atWorkspaceCamel, atProfile, atProfileCamel}},
	{"share", [4]slot{atShare, atShareCamel, atProfile, atProfileCamel}},
	{"org", [4]slot{atOrg, atOrgCamel, atProfile, atProfileCamel}},
}

func (d *draft) profileKind() string {
	for _, at := range [...]slot{atProfileType, atProfileTypeCamel} {
		if t := &d.texts[at]; t.kind == '"' {
			t.decode()
			return string(t.raw)
		}
	}
	return "workspace"
}

func (d *draft) object() *EventError {
	if d.wrongObject != 0 {
		return wantString("object_id", d.wrongObject)
	}
	return d.wantID(atObject, "object_id")
}

// describe checks the fields of the state, the actor and the member.
func (d *draft) describe() *EventError {
	d.nameAlgorithm()
	for at := atName; at <= lastText; at++ {
		t := &d.texts[at]
		if len(t.raw) <= maxText {
			continue
		}
		t.decode()
		if len(t.raw) > maxText {
			return &EventError{
				Reason: ReasonFieldTooLarge, Field: optional[at-atName],
				Detail: fmt.Sprintf("%d bytes are more than %d", len(t.raw), maxText),
			}
		}
	}
	for _, at := range [...]slot{atParent, atActor, atMember} {
		if err := d.wantID(at, optional[at-atName]); err != nil {
			return err
		}
	}
	return nil
}

// nameAlgorithm prefixes a hash with its hash_algo, as in "md5:…", unless the hash or its spelling (sha256) names one.
func (d *draft) nameAlgorithm() {
	const sha256Rank = 2
	t, algorithm := &d.texts[atHash], &d.texts[atHashAlgorithm]
	if t.kind == 0 || algorithm.kind != '"' || len(algorithm.raw) == 0 || t.rank == sha256Rank {
		return
	}
	if t.decode(); bytes.IndexByte(t.raw, ':') >= 0 {
		return
	}
	algorithm.decode()
	t.raw = slices.Concat(algorithm.raw, []byte(":"), t.raw)
}

func (d *draft) wantID(at slot, field string) *EventError {
	t := &d.texts[at]
	t.decode()
	return wantID(field, *t)
}

// An eventAlloc has an event and the values that its optional fields point to, in one allocation.
type eventAlloc struct {
	event          tidemarkv1.Event
	size, occurred int64
}

// event returns the message. All its texts are substrings of one string.
func (d *draft) event(value []byte) *tidemarkv1.Event {
	r := new(eventAlloc)
	e := &r.event
	e.Payload = value
	e.ReceivedAt = d.received.n
	if d.size.set {
		r.size = d.size.n
		e.Size = &r.size
	}
	if d.occurred.set {
		r.occurred = d.occurred.n
		e.OccurredAt = &r.occurred
	}
	e.Unreadable = d.unreadable()
	texts := [...]*text{
		&d.texts[atEvent], &d.sent, &d.texts[atEventID], &d.scope, &d.texts[atObject], &d.texts[atName],
		&d.texts[atPath], &d.texts[atParent], &d.texts[atMime], &d.texts[atHash], &d.texts[atActor], &d.texts[atMember],
	}
	into := [len(texts)]*string{
		&e.Event, &e.SentEvent, &e.EventId, &e.WorkspaceId, &e.FileId, &e.Name, &e.Path,
		&e.ParentId, &e.Mime, &e.Hash, &e.ActorId, &e.MemberId,
	}
	var local [768]byte
	var ends [len(texts)]int
	plain := local[:0]
	for i, t := range texts {
		if t.escaped {
			plain = appendUnescaped(plain, t.raw)
		} else {
			plain = append(plain, t.raw...)
		}
		ends[i] = len(plain)
	}
	all, from := string(plain), 0
	for i, end := range ends {
		*into[i] = all[from:end]
		from = end
	}
	return e
}
