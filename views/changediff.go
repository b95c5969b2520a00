package views

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/kafka/localstore"
	"tidemark/problem"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// The limits of a diff.
const (
	maxDiffFiles = 100_000
	maxDiffBytes = 16 << 20
	maxDiffs     = 4 // at the same time: each keeps its request in memory
)

// How much of a diff is read from the store at a time. Nothing is written meanwhile: a slow client must not keep the
// store open.
const (
	diffEntries = 10_000
	diffBytes   = 1 << 20
)

// A diffRequest is the body of a diff: the files that a client has with an id after After, up to and including Through.
type diffRequest struct {
	Files   diffFiles `json:"files"`
	After   string    `json:"after"`
	Through string    `json:"through"` // "" is no bound
}

type diffFile struct {
	ID      string `json:"id"`
	Version int64  `json:"version"`
}

// diffFiles are read one by one, so that there are never more than the limit.
type diffFiles []diffFile

var errTooManyFiles = errors.New("too many files")

// UnmarshalJSON implements json.Unmarshaler. A null is an empty list, as in Go.
func (l *diffFiles) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if first, err := d.Token(); err != nil || first != json.Delim('[') {
		return errors.New("files must be an array")
	}
	for d.More() {
		var f diffFile
		if err := d.Decode(&f); err != nil {
			return fmt.Errorf("files[%d]: %w", len(*l), err)
		}
		if f.ID == "" || f.Version < 0 {
			return fmt.Errorf("files[%d] must have an id, and a version of 0 or more", len(*l))
		}
		if len(*l) == maxDiffFiles {
			return errTooManyFiles
		}
		*l = append(*l, f)
	}
	return nil
}

// diffFiles answers in what the files of a query differ from those that a client has.
func (s *Server) diffFiles(c *call) (*answer, error) {
	c.noStore = true
	q, _, err := parseQuery(c)
	if err != nil {
		return nil, err
	}
	select {
	case s.diffs <- struct{}{}:
		c.release = func() { <-s.diffs }
	default:
		return nil, problem.New(http.StatusServiceUnavailable, codeTooManyDiffs, fmt.Sprintf(
			"%d diffs are being answered, which is the most at a time: try again", maxDiffs)).Retry(5 * time.Second)
	}
	body, err := s.parseDiff(c)
	if err != nil {
		return nil, err
	}
	if err := s.begin(c, "", nil); err != nil {
		return nil, err
	}
	partition := s.partition(c.workspace)
	if err := s.checkExists(c, partition); err != nil {
		return nil, err
	}
	topic := hashTopic(s.files.topicID.Load())
	next, _ := s.files.frontiers[partition].offsets()
	if next == unknown {
		return nil, errStoreNotReady
	}
	d := &fileDiff{q: q, topic: topic, partition: partition, request: body, next: next}
	return &answer{stream: func(out *stream) error { return s.writeDiff(out, d) }}, nil
}

func (s *Server) parseDiff(c *call) (body diffRequest, err error) {
	d := json.NewDecoder(s.upload(c, maxDiffBytes))
	d.DisallowUnknownFields()
	object := &body
	if err = d.Decode(&object); err == nil && object == nil {
		err = errors.New("it is null")
	}
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = cmp.Or(end, errors.New("there is something after the object"))
		}
	}
	if slow := uploaded(c, err); slow != nil {
		return body, slow
	}
	_, tooLong := errors.AsType[*http.MaxBytesError](err)
	switch {
	case tooLong || errors.Is(err, errTooManyFiles):
		return body, problem.New(http.StatusRequestEntityTooLarge, codeTooLarge, fmt.Sprintf("send at most %d files "+
			"and %d MiB at a time: split the ids into ranges with after and through", maxDiffFiles, maxDiffBytes>>20)).
			On("files")
	case err != nil:
		return body, badField("files", `the body must be {"files":[{"id":"2abc","version":3}]}: `+err.Error())
	case body.Through != "" && body.Through <= body.After:
		return body, badField("through", "through must be greater than after")
	}
	slices.SortFunc(body.Files, func(a, b diffFile) int { return cmp.Compare(a.ID, b.ID) })
	for i, f := range body.Files {
		if i > 0 && body.Files[i-1].ID == f.ID {
			return body, badField("files", fmt.Sprintf("give the id %q once", f.ID))
		}
		if f.ID <= body.After || body.Through != "" && f.ID > body.Through {
			return body, badField("files", fmt.Sprintf("the id %q is not after %q and up to %q", f.ID, body.After,
				body.Through))
		}
	}
	return body, nil
}

// A fileDiff merges the files that a client has with those in the index, both in the order of their ids. The index is
// read in parts, each of a snapshot of its own: what changes meanwhile is also after the cursor.
type fileDiff struct {
	q         query
	topic     topicHash
	partition int32
	request   diffRequest
	next      int64 // changelog offset up to which the copy had read at first
	copied    int64 // and in the last part

	passNew bool     // appends the files that the client does not have; else those that it has, in another version
	i       int      // of the next of request.Files
	from    []byte   // the last id of the index that was read
	json    []byte   // array elements with commas
	comma   bool     // there were elements before
	gone    []string // what the client has and the query does not include
}

func (s *Server) writeDiff(out *stream, d *fileDiff) error {
	write := func(b []byte) error {
		_, err := out.Write(b)
		return err
	}
	if err := write([]byte(`{"changed":[`)); err != nil {
		return err
	}
	if err := s.writePass(d, write); err != nil {
		return err
	}
	gone, err := json.Marshal(append([]string{}, d.gone...))
	if err != nil {
		return err
	}
	if err := write(append(append([]byte(`],"gone":`), gone...), `,"new":[`...)); err != nil {
		return err
	}
	d.passNew = true
	if err := s.writePass(d, write); err != nil {
		return err
	}
	at := s.issue(changesCursor{topic: d.topic, next: d.next, copied: d.copied, nextEvent: unknown}, unknown)
	return write([]byte(`],"cursor":"` + d.q.encodeChangesCursor(at) + `","expires_at":"` +
		s.expiresAt(at).Format(time.RFC3339) + `"}`))
}

func (s *Server) writePass(d *fileDiff, write func([]byte) error) error {
	d.i, d.from, d.comma = 0, nil, false
	if d.request.After != "" {
		d.from = []byte(d.request.After)
	}
	for done := false; !done; {
		d.json = d.json[:0]
		err := s.files.read(func(store *localstore.Store) (err error) {
			if d.topic != hashTopic(s.files.topicID.Load()) {
				return errStoreNotReady
			}
			done, err = d.read(store)
			return err
		})
		if err != nil {
			return err
		}
		if err := write(d.json); err != nil {
			return err
		}
	}
	return nil
}

// read reads the next part of the index; done reports that it was the last.
func (d *fileDiff) read(store *localstore.Store) (done bool, err error) {
	byID := d.q
	byID.prefix = ""
	scans, err := openScans(store, d.partition, byID, d.from)
	defer func() { scans.close() }()
	if err != nil {
		return false, err
	}
	if d.copied, err = nextOffset(scans[0].scan, d.partition); err != nil || d.copied < d.next {
		return false, cmp.Or(err, errStoreNotReady)
	}
	for range diffEntries {
		scan := scans.smallest()
		if scan != nil && d.request.Through != "" && string(scan.tail) > d.request.Through {
			scan = nil
		}
		if err := d.merge(scan); err != nil {
			return false, err
		}
		if scan == nil {
			return true, nil
		}
		d.from = append(d.from[:0], scan.tail...)
		if err := scan.move(); err != nil {
			return false, err
		}
		if len(d.json) > diffBytes {
			break
		}
	}
	return false, nil
}

// merge compares the current entry of a scan, nil at the end, with the files of the client up to it.
func (d *fileDiff) merge(scan *partScan) error {
	files := d.request.Files
	for d.i < len(files) && (scan == nil || files[d.i].ID < string(scan.tail)) {
		d.isGone(files[d.i].ID)
		d.i++
	}
	if scan == nil {
		return nil
	}
	id := string(scan.tail)
	has := d.i < len(files) && files[d.i].ID == id
	version := int64(0)
	if has {
		version = files[d.i].Version
		d.i++
	}
	if has == d.passNew {
		return nil
	}
	_, current, err := parseIDValue(scan.scan.Value())
	if err != nil || has && current == version && d.q.prefix == "" {
		return err
	}
	value, err := scan.scan.Get(d.partition, localstore.Rows, []byte(tidemarkv1.JoinKey(d.q.workspace, id)))
	if err != nil {
		return err
	}
	var row tidemarkv1.FileState
	if err := proto.Unmarshal(value, &row); err != nil {
		return err
	}
	switch {
	case !d.q.includes(&row) && has:
		d.isGone(id)
	case d.q.includes(&row) && (!has || current != version):
		if d.comma {
			d.json = append(d.json, ',')
		}
		d.comma = true
		d.json = codecs.AppendFile(d.json, &row)
	}
	return nil
}

func (d *fileDiff) isGone(id string) {
	if !d.passNew {
		d.gone = append(d.gone, id)
	}
}
