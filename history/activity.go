package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path"
	"time"

	"tidemark/file"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// ActivityKept is how long the activity is kept, by the time of the events.
const ActivityKept = 7 * 24 * time.Hour

// A Dimension is what activity is counted by.
type Dimension byte

// The dimensions. All counts every event; the others count those that have such a key.
const (
	All    Dimension = '*'
	Type   Dimension = 't'
	Folder Dimension = 'f'
	Actor  Dimension = 'a'
)

// Activity is what happened: events without those that were derived for a folder's entries, changes of files, and the
// bytes of active files that were added and removed.
type Activity struct {
	Events, Added, Updated, Deleted int64
	BytesAdded, BytesRemoved        int64
}

// Add adds other activity.
func (a *Activity) Add(b Activity) {
	a.Events += b.Events
	a.Added += b.Added
	a.Updated += b.Updated
	a.Deleted += b.Deleted
	a.BytesAdded += b.BytesAdded
	a.BytesRemoved += b.BytesRemoved
}

func (a Activity) encode() (b []byte) {
	for _, n := range []int64{a.Events, a.Added, a.Updated, a.Deleted, a.BytesAdded, a.BytesRemoved} {
		b = binary.AppendVarint(b, n)
	}
	return b
}

func parseActivity(b []byte) (a Activity, err error) {
	for _, n := range []*int64{&a.Events, &a.Added, &a.Updated, &a.Deleted, &a.BytesAdded, &a.BytesRemoved} {
		value, size := binary.Varint(b)
		if size <= 0 {
			return a, errBadEntry
		}
		*n, b = value, b[size:]
	}
	return a, nil
}

// activityOf returns what a notice adds, with the type and the folder of the file that it is about. A file that is
// moved is updated, in its new folder.
func activityOf(n *tidemarkv1.Notice) (a Activity, typ, folder string, isFile bool) {
	if n.GetCause() == nil {
		a.Events = 1
	}
	was, is := file.TypeOf(n.GetBefore()), file.TypeOf(n.GetAfter())
	if was == "" && is == "" {
		return a, "", "", false
	}
	before, after := int64(0), int64(0)
	typ, folder = was, FolderOf(n.GetBefore())
	if was != "" {
		before = n.GetBefore().GetSize()
	}
	if is != "" {
		typ, folder, after = is, FolderOf(n.GetAfter()), n.GetAfter().GetSize()
	}
	switch {
	case was == "":
		a.Added = 1
	case is == "":
		a.Deleted = 1
	default:
		a.Updated = 1
	}
	a.BytesAdded, a.BytesRemoved = max(0, after-before), max(0, before-after)
	return a, typ, folder, true
}

// FolderOf returns the path of the folder that a file is in, "" if its path is not known.
func FolderOf(s *tidemarkv1.FileState) string {
	if s.GetPath() == "" {
		return ""
	}
	return path.Dir(s.GetPath())
}

// The keys of byHour:
//
//	hour workspace "/" dimension key -> Activity
//	hour workspace "/" '#' dimension -> how many keys it has
//	hour workspace "/" '+' dimension -> Activity of all keys beyond maxKeys
//
// The hour is the number of hours since 1970, as 4 bytes, big endian.
const (
	keyCount = '#'
	beyond   = '+'
)

// maxKeys is how many keys an hour of a workspace has in each dimension.
const maxKeys = 1000

func hourKey(hour uint32, workspace string, dimension ...byte) []byte {
	b := append(binary.BigEndian.AppendUint32(make([]byte, 0, len(workspace)+64), hour), workspace...)
	return append(append(b, '/'), dimension...)
}

// hourOf returns the hour of a notice by the time of its event, but not after the record was written. ok is false if
// it was older than what is kept when the record was written.
func hourOf(n *tidemarkv1.Notice, written time.Time) (hour uint32, ok bool) {
	at := time.UnixMicro(n.GetAt())
	if at.After(written) {
		at = written
	}
	return uint32(at.Unix() / 3600), at.After(written.Add(-ActivityKept)) && at.Unix() >= 0
}

// countActivity adds a notice to the hour of its event.
func countActivity(w *localstore.Writer, workspace string, n *tidemarkv1.Notice, written time.Time) error {
	hour, ok := hourOf(n, written)
	if !ok {
		return nil
	}
	a, typ, folder, isFile := activityOf(n)
	if a == (Activity{}) {
		return nil
	}
	keys := []struct {
		of  Dimension
		key string
	}{{All, ""}, {Actor, n.GetActorId()}, {Type, typ}, {Folder, folder}}
	if !isFile {
		keys = keys[:2]
	}
	for _, k := range keys {
		key := append(hourKey(hour, workspace, byte(k.of)), k.key...)
		if err := addActivity(w, key, hourKey(hour, workspace, keyCount, byte(k.of)),
			hourKey(hour, workspace, beyond, byte(k.of)), a); err != nil {
			return err
		}
	}
	return nil
}

func addActivity(w *localstore.Writer, key, count, rest []byte, a Activity) error {
	stored, err := w.Get(byHour, key)
	if err != nil {
		return err
	}
	if stored == nil {
		counted, err := w.Get(byHour, count)
		if err != nil {
			return err
		}
		if n, _ := binary.Uvarint(counted); n < maxKeys { // 0 if there is none
			w.Set(byHour, count, binary.AppendUvarint(nil, n+1))
		} else {
			key = rest
			if stored, err = w.Get(byHour, key); err != nil {
				return err
			}
		}
	}
	if stored != nil {
		before, err := parseActivity(stored)
		if err != nil {
			return err
		}
		a.Add(before)
	}
	w.Set(byHour, key, a.encode())
	return nil
}

// Total returns the activity of a workspace in an hour, which is given by a time in it.
func (s *Snapshot) Total(workspace string, hour time.Time) (Activity, error) {
	return s.activity(activityKey(workspace, hour, byte(All)))
}

// Activity calls each with the activity of each key of a dimension in an hour of a workspace. It returns that of all
// keys beyond the first 1,000.
func (s *Snapshot) Activity(workspace string, hour time.Time, of Dimension, each func(key string, a Activity)) (
	rest Activity, err error,
) {
	from := activityKey(workspace, hour, byte(of))
	scan := s.scan.SameSnapshot(s.number, byHour, from, localstore.PrefixEnd(from))
	defer scan.Close() //nolint:errcheck // Err returns its errors
	for scan.Next() {
		a, err := parseActivity(scan.Value())
		if err != nil {
			return rest, err
		}
		each(string(scan.Key()[len(from):]), a)
	}
	if err := scan.Err(); err != nil {
		return rest, err
	}
	return s.activity(activityKey(workspace, hour, beyond, byte(of)))
}

func activityKey(workspace string, hour time.Time, dimension ...byte) []byte {
	return hourKey(uint32(hour.Unix()/3600), tidemarkv1.JoinKey(workspace, ""), dimension...)
}

// activity returns what is stored under a key of byHour.
func (s *Snapshot) activity(key []byte) (a Activity, err error) {
	value, err := s.scan.Get(s.number, byHour, key)
	if err != nil || value == nil {
		return a, err
	}
	return parseActivity(value)
}

// trimActivity removes the hours of a partition before a time.
func (c *Copy) trimActivity(p *partition, before time.Time) error {
	end := binary.BigEndian.AppendUint32(nil, uint32(max(0, before.Unix()/3600)))
	for {
		var gone [][]byte
		scan := c.store.Scan(p.number, byHour, nil, end)
		for len(gone) < trimBatch && scan.Next() {
			gone = append(gone, bytes.Clone(scan.Key()))
		}
		if err := errors.Join(scan.Err(), scan.Close()); err != nil || len(gone) == 0 {
			return err
		}
		if err := c.store.Update(p.number, p.next-1, func(w *localstore.Writer) error {
			for _, key := range gone {
				w.Delete(byHour, key)
			}
			return nil
		}); err != nil {
			return err
		}
	}
}
