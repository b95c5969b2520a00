package history

import (
	"time"

	"google.golang.org/protobuf/proto"

	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A Snapshot is one partition of a copy at one time. It is valid during the call that it was passed to.
type Snapshot struct {
	number int32
	logID  string
	scan   *localstore.Scan
	bounds bounds
}

// Read calls f with a snapshot of a partition.
func (c *Copy) Read(number int32, f func(*Snapshot) error) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.store == nil {
		return ErrClosed
	}
	s := &Snapshot{number: number, logID: c.logID, scan: c.store.Scan(number, boundsSpace, nil, nil)}
	defer s.scan.Close() //nolint:errcheck // its methods return the errors
	stored, err := s.scan.Get(number, boundsSpace, nil)
	if err != nil {
		return err
	}
	if stored == nil { // before begin
		return ErrClosed
	}
	if s.bounds, err = parseBounds(stored); err != nil {
		return err
	}
	return f(s)
}

// LogID returns the id of the events topic that the positions are in.
func (s *Snapshot) LogID() string { return s.logID }

// Before returns the offset of an event: the notices of all later events are kept, as far as the copy has read.
func (s *Snapshot) Before() int64 { return s.bounds.before() }

// FileAt returns the state of a file as of an offset of the events topic, nil if the file did not exist. It is for a
// file that has changed since: known is false if the next change after that offset is not kept, or was not read yet.
func (s *Snapshot) FileAt(workspace, file string, offset int64) (state *tidemarkv1.FileState, known bool, err error) {
	key := tidemarkv1.JoinKey(workspace, file)
	found, value, err := s.scan.First(s.number, byFile, fileKey(key, offset+1), append([]byte(key), 1))
	if err != nil || found == nil {
		return nil, false, err
	}
	var n tidemarkv1.Notice
	if err := proto.Unmarshal(value, &n); err != nil {
		return nil, false, err
	}
	// The state before a change is that as of all positions from the change before on. So a notice that was not read,
	// or is not kept, is noticed here. A state from before the events topic was recreated may have a position that is
	// not before the change: the change is the file's first one in this log.
	before := n.GetBefore()
	if p := before.GetPosition(); p != nil && p.GetPartition() == s.number && p.GetOffset() > offset &&
		p.GetOffset() < offsetOf(found) {
		return nil, false, nil
	}
	return withIDs(before, workspace, file), true, nil
}

// Versions calls each with the notices of a file that have a version, the newest first, for events before an offset and
// after Before, until it returns false.
func (s *Snapshot) Versions(workspace, file string, before int64, each func(*tidemarkv1.Notice) (bool, error)) error {
	key := tidemarkv1.JoinKey(workspace, file)
	scan := s.scan.SameSnapshot(s.number, byFile, fileKey(key, s.Before()+1), fileKey(key, max(before, s.Before()+1)))
	defer scan.Close() //nolint:errcheck // Err returns its errors
	for scan.Previous() {
		n := new(tidemarkv1.Notice)
		if err := proto.Unmarshal(scan.Value(), n); err != nil {
			return err
		}
		withIDs(n.GetBefore(), workspace, file)
		withIDs(n.GetAfter(), workspace, file)
		if more, err := each(n); err != nil || !more {
			return err
		}
	}
	return scan.Err()
}

// Counted calls each with what is counted of the notices of a workspace, for events after an offset up to and including
// another one, in the order of the events.
func (s *Snapshot) Counted(workspace string, after, through int64, each func(offset int64, n *tidemarkv1.Notice) error,
) error {
	key := tidemarkv1.JoinKey(workspace, "")
	scan := s.scan.SameSnapshot(s.number, byWorkspace, workspaceKey(key, after+1), workspaceKey(key, through+1))
	defer scan.Close() //nolint:errcheck // Err returns its errors
	var n tidemarkv1.Notice
	for scan.Next() {
		if err := proto.Unmarshal(scan.Value(), &n); err != nil { // resets n first
			return err
		}
		if err := each(offsetOf(scan.Key()), &n); err != nil {
			return err
		}
	}
	return scan.Err()
}

// Since returns from when on all notices were read, by the time at which they were written. It is zero if all of the
// topic were.
func (s *Snapshot) Since() time.Time {
	if s.bounds.since == 0 {
		return time.Time{}
	}
	return time.UnixMilli(s.bounds.since).UTC()
}
