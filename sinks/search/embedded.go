package search

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
)

// embeddedFormat is the name of the database's folder, so one of another format is not opened.
const embeddedFormat = "index-2"

// An embedded index is a Pebble database. A query reads the documents of its workspace in order until the page is full,
// about 1 µs for each: see docs/decisions/0022-embedded-search.md. Keys and values:
//
//	'd' workspace "/" file   words, 0x00, FileState; the workspace is escaped as in a record key, so "/" ends it
//	'c'                      exists if a rebuild has ended
//
// A batch is on the disk before it counts as delivered, because its offsets are committed then.
type embedded struct {
	dir string
	db  *pebble.DB
	mu  sync.Mutex // from reading a version until a newer one is written
	log *slog.Logger
}

var completeKey = []byte("c")

// damagedFile in the folder makes the next start delete the database.
const damagedFile = "damaged"

// openEmbedded opens the database, or a new one in place of one that cannot be read.
func openEmbedded(dir string, log *slog.Logger) (*embedded, error) {
	e := &embedded{dir: filepath.Join(dir, embeddedFormat), log: log}
	err := errors.New("it is damaged")
	if _, undamaged := os.Stat(filepath.Join(e.dir, damagedFile)); undamaged != nil {
		err = e.open()
	}
	// An error of the system is about permissions, a lock or a full disk. Others are about the content.
	_, system := errors.AsType[syscall.Errno](err)
	if err != nil && (!system || pebble.IsCorruptionError(err) || errors.Is(err, os.ErrNotExist)) {
		log.Warn("the embedded search index cannot be read, a new one replaces it", "dir", e.dir, "error", err)
		if err = os.RemoveAll(e.dir); err == nil {
			err = e.open()
		}
	}
	return e, err
}

func (e *embedded) open() (err error) {
	e.db, err = pebble.Open(e.dir, &pebble.Options{Logger: pebbleLog{e.log}, EventListener: &pebble.EventListener{
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			err := errors.Join(i.Details, os.WriteFile(filepath.Join(e.dir, damagedFile), nil, 0o600))
			e.log.Error("the embedded search index is damaged: restart, and a new one replaces it", "error", err)
		},
	}})
	return err
}

func documentKey(workspace, file string) []byte {
	return []byte("d" + tidemarkv1.EscapePart(workspace) + "/" + file)
}

func (e *embedded) apply(_ context.Context, files []*tidemarkv1.FileState) (_ []error, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	batch := e.db.NewIndexedBatch()
	defer func() { err = errors.Join(err, batch.Close()) }()
	for _, file := range files {
		if err := write(batch, file); err != nil {
			return nil, err
		}
	}
	return make([]error, len(files)), batch.Commit(pebble.Sync)
}

// write writes a document, unless the batch or the database has this version or a newer one.
func write(batch *pebble.Batch, file *tidemarkv1.FileState) error {
	key := documentKey(file.GetWorkspaceId(), file.GetFileId())
	switch value, closer, err := batch.Get(key); {
	case err == nil:
		old := new(tidemarkv1.FileState)
		_, message, _ := bytes.Cut(value, []byte{0})
		err := errors.Join(proto.Unmarshal(message, old), closer.Close())
		if err != nil || old.GetVersion() >= file.GetVersion() {
			return err
		}
	case !errors.Is(err, pebble.ErrNotFound):
		return err
	}
	value, err := proto.MarshalOptions{}.MarshalAppend([]byte(fileWords(file)+"\x00"), file)
	return errors.Join(err, batch.Set(key, value, nil))
}

func (e *embedded) find(ctx context.Context, f filter) (found []*tidemarkv1.FileState, err error) {
	scan, err := e.db.NewIter(&pebble.IterOptions{
		LowerBound: append(documentKey(f.Workspace, f.after), 0),
		UpperBound: localstore.PrefixEnd(documentKey(f.Workspace, "")),
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, scan.Close()) }()
	for more := scan.First(); more && len(found) < f.Limit && ctx.Err() == nil; more = scan.Next() {
		file, err := match(scan.Value(), f)
		if err != nil {
			return nil, err
		}
		if file != nil {
			found = append(found, file)
		}
	}
	return found, ctx.Err()
}

// match returns the file of a document that matches, else nil.
func match(value []byte, f filter) (*tidemarkv1.FileState, error) {
	words, message, _ := bytes.Cut(value, []byte{0})
	for _, word := range f.words {
		if !bytes.HasPrefix(words, []byte(word)) && !bytes.Contains(words, []byte(" "+word)) {
			return nil, nil
		}
	}
	// Most documents need not be decoded: the encoding contains each text as it is.
	if !bytes.Contains(message, []byte(f.PathPrefix)) || !bytes.Contains(message, []byte(f.MIME)) {
		return nil, nil
	}
	file := new(tidemarkv1.FileState)
	err := proto.Unmarshal(message, file)
	status := strings.ToLower(strings.TrimPrefix(file.GetStatus().String(), "STATUS_"))
	if err != nil || !strings.HasPrefix(file.GetPath(), f.PathPrefix) || f.MIME != "" && f.MIME != file.GetMime() ||
		!slices.Contains(f.statuses, status) {
		return nil, err
	}
	return file, nil
}

// Rebuild empties the index and fills it in place. Other sinks of this process go on writing to it: what they wrote
// before had been read from the topic, so deliverNew delivers it again.
func (e *embedded) Rebuild(ctx context.Context, deliverNew func(context.Context, sinks.Sink) error) error {
	e.mu.Lock()
	err := e.db.DeleteRange([]byte{0}, []byte{0xff}, pebble.Sync)
	e.mu.Unlock()
	if err == nil {
		err = deliverNew(ctx, &Sink{e})
	}
	if err != nil {
		return fmt.Errorf("fill the embedded search index: %w", err)
	}
	return e.db.Set(completeKey, nil, pebble.Sync)
}

func (e *embedded) Incomplete() bool {
	_, closer, err := e.db.Get(completeKey)
	return err != nil || closer.Close() != nil
}

func (e *embedded) Check(context.Context) error   { return nil }
func (e *embedded) Refresh(context.Context) error { return nil }
func (e *embedded) Close() error                  { return e.db.Close() }

// pebbleLog logs Pebble's errors, without its progress messages.
type pebbleLog struct{ log *slog.Logger }

func (l pebbleLog) Infof(string, ...any) {}
func (l pebbleLog) Errorf(format string, args ...any) {
	l.log.Error("search: " + fmt.Sprintf(format, args...))
}
func (l pebbleLog) Fatalf(format string, args ...any) {
	panic("search: " + fmt.Sprintf(format, args...))
}
