package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/kafka"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// The store has a notice under several keys. Workspaces and files are escaped as in record keys, so they contain
// neither "/" nor 0x00. Positions and offsets are 8 bytes, big endian: the keys of a file, and those of a workspace,
// are in the order of the events topic.
//
//	byFile       workspace "/" file 0x00 position -> a Notice with what is shown; of notices with a version
//	byWorkspace  workspace "/" position           -> a Notice with what is counted; of each notice
//	byOffset     offset in the notify topic       -> position, record time, key of the file or workspace
//	byHour       see activity.go
//	boundsSpace  (empty)                          -> bounds
const (
	byFile      localstore.Space = 1
	byWorkspace localstore.Space = 2
	byOffset    localstore.Space = 3
	byHour      localstore.Space = 4
	boundsSpace localstore.Space = 5
)

// layout is part of the pin of a store: a change of the keys or values rebuilds it from the topic.
const layout = "history-2"

// bounds say which notices of a partition are kept: those of all events after before().
type bounds struct {
	removed int64 // highest position of the notices that were removed, -1 if none were
	missing int64 // notices up to this position may be before the first record that was read
	since   int64 // milliseconds since 1970: all notices that were written from then on were read; 0: all of the topic
	last    int64 // offset of the last event when the reading began: notices of later ones are behind the first record

	// Records of the notify topic before the offset marginEnd, written before marginUntil (milliseconds since 1970),
	// may be late: see margin. marginEnd is 0 if there is no margin, or it is over.
	marginEnd, marginUntil int64
	begun                  bool // a notice was read
}

// before returns the offset of an event: the notices of all later events are kept.
func (b *bounds) before() int64 { return max(b.removed, b.missing) }

// see notes a notice at a position.
func (b *bounds) see(r *kgo.Record, at int64) {
	written := r.Timestamp.UnixMilli()
	switch {
	case b.marginEnd == 0 && b.begun:
	case b.marginEnd == 0: // the first notice of the topic
		b.begun, b.missing = true, min(b.last, at-1)
	case !b.begun:
		b.begun, b.missing, b.marginUntil = true, min(b.last, at), written+marginTime.Milliseconds()
	case r.Offset < b.marginEnd && written < b.marginUntil:
		b.missing = max(b.missing, min(b.last, at))
	default:
		b.marginEnd = 0
	}
}

func (b *bounds) numbers() []*int64 {
	return []*int64{&b.removed, &b.missing, &b.since, &b.last, &b.marginEnd, &b.marginUntil}
}

func (b *bounds) encode() (e []byte) {
	for _, n := range b.numbers() {
		e = binary.BigEndian.AppendUint64(e, uint64(*n))
	}
	if b.begun {
		return append(e, 1)
	}
	return append(e, 0)
}

var errBadEntry = errors.New("the history has a bad entry")

func parseBounds(e []byte) (b bounds, err error) {
	numbers := b.numbers()
	if len(e) != 8*len(numbers)+1 {
		return b, errBadEntry
	}
	for i, n := range numbers {
		*n = int64(binary.BigEndian.Uint64(e[8*i:]))
	}
	b.begun = e[8*len(numbers)] == 1
	return b, nil
}

func loadBounds(s *localstore.Store, number int32) (bounds, error) {
	e, err := s.Get(number, boundsSpace, nil)
	if err != nil {
		return bounds{}, err
	}
	return parseBounds(e)
}

func fileKey(key string, offset int64) []byte {
	b := append(make([]byte, 0, len(key)+9), key...)
	return binary.BigEndian.AppendUint64(append(b, 0), uint64(offset))
}

func workspaceKey(workspace string, offset int64) []byte {
	b := append(make([]byte, 0, len(workspace)+9), workspace...)
	return binary.BigEndian.AppendUint64(append(b, '/'), uint64(offset))
}

// offsetOf returns the position at the end of a key.
func offsetOf(key []byte) int64 { return int64(binary.BigEndian.Uint64(key[len(key)-8:])) }

// reset sets and stores the bounds of a partition that is read from first on, as of Resume.
func (c *Copy) reset(p *partition, topic kafka.Span, first, lastEvent int64, since time.Time) error {
	b := bounds{
		removed: -1, missing: lastEvent, since: since.UnixMilli(), last: lastEvent, marginEnd: first + margin,
	}
	if topic.From == 0 && first == 0 {
		b.since, b.marginEnd = 0, 0
	}
	before, err := c.store.Get(p.number, boundsSpace, nil)
	if err != nil {
		return err
	}
	if before != nil { // what was removed before a gap may be repeated after it
		old, err := parseBounds(before)
		if err != nil {
			return err
		}
		b.removed = old.removed
	}
	p.bounds = b
	return c.store.Update(p.number, first-1, func(w *localstore.Writer) error {
		w.Set(boundsSpace, nil, b.encode())
		return nil
	})
}

// Apply applies one record of the notify topic.
func (c *Copy) Apply(r *kgo.Record) error {
	p := c.partitions[r.Partition]
	if err := c.apply(p, r); err != nil {
		return fmt.Errorf("apply %s %d:%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	p.setNext(r.Offset + 1)
	return nil
}

func (c *Copy) apply(p *partition, r *kgo.Record) error {
	n, err := c.decode(p, r)
	if n == nil {
		if err != nil {
			c.metrics.unreadable.Inc()
			c.conf.Log.Warn("a notice cannot be read, it is not in the history", "topic", r.Topic,
				"partition", r.Partition, "offset", r.Offset, "error", err)
		}
		return c.store.Update(p.number, r.Offset, func(*localstore.Writer) error { return nil })
	}
	repeated, after := false, p.bounds
	if err := c.store.Update(p.number, r.Offset, func(w *localstore.Writer) (err error) {
		at := n.GetPosition().GetOffset()
		if after.see(r, at); after != p.bounds {
			w.Set(boundsSpace, nil, after.encode())
		}
		workspace := tidemarkv1.JoinKey(n.GetWorkspaceId(), "")
		if repeated, err = isKept(w, after, workspace, at); err != nil || repeated {
			return err
		}
		return put(w, r, n, workspace, at)
	}); err != nil {
		return err
	}
	p.bounds = after
	if repeated {
		c.metrics.repeated.Inc()
	} else {
		c.metrics.applied.Inc()
	}
	return nil
}

// decode returns the notice of a record; nil for a marker of a transaction, and with an error for a record that another
// program wrote.
func (c *Copy) decode(p *partition, r *kgo.Record) (*tidemarkv1.Notice, error) {
	if r.Attrs.IsControl() {
		return nil, nil
	}
	decoded, err := codecs.Notice{}.Decode(r.Value)
	if err != nil {
		return nil, err
	}
	n := decoded.(*tidemarkv1.Notice)
	of := kafka.Partition(n.GetWorkspaceId(), len(c.partitions))
	if of != p.number || n.GetPosition().GetPartition() != of {
		return nil, fmt.Errorf("position %s of workspace %q is in another partition", n.GetPosition().Text(),
			n.GetWorkspaceId())
	}
	return n, nil
}

// isKept reports whether the notice at a position was applied before.
func isKept(w *localstore.Writer, b bounds, workspace string, at int64) (bool, error) {
	if at <= b.removed {
		return true, nil
	}
	value, err := w.Get(byWorkspace, workspaceKey(workspace, at))
	return value != nil, err
}

// put stores a notice.
func put(w *localstore.Writer, r *kgo.Record, n *tidemarkv1.Notice, workspace string, at int64) error {
	counted, err := proto.Marshal(countedOf(n))
	if err != nil {
		return err
	}
	w.Set(byWorkspace, workspaceKey(workspace, at), counted)
	if err := countActivity(w, workspace, n, r.Timestamp); err != nil {
		return err
	}
	key := workspace
	if n.Version != nil && n.GetAfter() != nil {
		key = tidemarkv1.JoinKey(n.GetWorkspaceId(), n.GetFileId())
		shown, err := proto.Marshal(shownOf(n))
		if err != nil {
			return err
		}
		w.Set(byFile, fileKey(key, at), shown)
	}
	entry := binary.BigEndian.AppendUint64(nil, uint64(at))
	entry = binary.BigEndian.AppendUint64(entry, uint64(r.Timestamp.UnixMilli()))
	w.Set(byOffset, binary.BigEndian.AppendUint64(nil, uint64(r.Offset)), append(entry, key...))
	return nil
}

// shownOf returns what a history shows of a notice. The ids are in its key.
func shownOf(n *tidemarkv1.Notice) *tidemarkv1.Notice {
	return &tidemarkv1.Notice{
		Event: n.GetEvent(), EventId: n.GetEventId(), ActorId: n.GetActorId(), At: n.GetAt(), Late: n.GetLate(),
		Cause: n.GetCause(), Version: n.Version, Position: n.GetPosition(),
		Before: withIDs(n.GetBefore(), "", ""), After: withIDs(n.GetAfter(), "", ""),
	}
}

// withIDs sets the ids of a state that nobody else has.
func withIDs(s *tidemarkv1.FileState, workspace, file string) *tidemarkv1.FileState {
	if s != nil {
		s.WorkspaceId, s.FileId = workspace, file
	}
	return s
}

// countedOf returns what the counts of a workspace depend on.
func countedOf(n *tidemarkv1.Notice) *tidemarkv1.Notice {
	counted := &tidemarkv1.Notice{Before: countedState(n.GetBefore()), After: countedState(n.GetAfter())}
	if n.GetCause() != nil {
		counted.Cause = &tidemarkv1.Cause{}
	}
	return counted
}

func countedState(s *tidemarkv1.FileState) *tidemarkv1.FileState {
	if s == nil {
		return nil
	}
	return &tidemarkv1.FileState{Status: s.GetStatus(), Kind: s.GetKind(), Size: s.Size, Mime: s.GetMime()}
}

// trimBatch is how many notices are removed in one write.
const trimBatch = 1000

// Trim removes what is older than what is kept.
func (c *Copy) Trim(now time.Time) error {
	for _, p := range c.partitions {
		if err := c.trim(p, now.Add(-c.conf.Keep)); err != nil {
			return err
		}
		if err := c.trimActivity(p, now.Add(-ActivityKept-time.Hour)); err != nil {
			return err
		}
	}
	return nil
}

func (c *Copy) trim(p *partition, olderThan time.Time) error {
	for {
		var gone [][]byte // entries of byOffset, with their keys
		scan := c.store.Scan(p.number, byOffset, binary.BigEndian.AppendUint64(nil, uint64(p.oldest)), nil)
		for len(gone) < trimBatch && scan.Next() {
			value := scan.Value()
			if len(value) < 16 {
				return errors.Join(errBadEntry, scan.Close())
			}
			if written := time.UnixMilli(int64(binary.BigEndian.Uint64(value[8:]))); !written.Before(olderThan) {
				break
			}
			gone = append(gone, append(append([]byte(nil), scan.Key()...), value...))
		}
		err := scan.Err()
		if err := errors.Join(err, scan.Close()); err != nil || len(gone) == 0 {
			return err
		}
		if err := c.remove(p, gone); err != nil {
			return err
		}
		p.oldest = int64(binary.BigEndian.Uint64(gone[len(gone)-1])) + 1
	}
}

// remove removes notices, given as entries of byOffset: key and value.
func (c *Copy) remove(p *partition, gone [][]byte) error {
	after := p.bounds
	if err := c.store.Update(p.number, p.next-1, func(w *localstore.Writer) error {
		for _, entry := range gone {
			at, key := int64(binary.BigEndian.Uint64(entry[8:])), string(entry[24:])
			workspace, _, isFile := strings.Cut(key, "/")
			w.Delete(byOffset, entry[:8])
			w.Delete(byWorkspace, workspaceKey(workspace, at))
			if isFile {
				w.Delete(byFile, fileKey(key, at))
			}
			after.removed = max(after.removed, at)
		}
		w.Set(boundsSpace, nil, after.encode())
		return nil
	}); err != nil {
		return err
	}
	p.bounds = after
	return nil
}
