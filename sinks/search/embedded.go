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

	"tidemark/codecs"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// embeddedFormat is the name of the database's folder, so one of another format is not opened.
const embeddedFormat = "index-1"

// An embedded index is a Pebble database. A query reads the documents of its workspace in order until the page is full,
// about 1 µs for each: see docs/decisions/0022-embedded-search.md. Keys and values:
//
//	'd' workspace "/" file   words, 0x00, IndexOp; the workspace is escaped as in a record key, so "/" ends it
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
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
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

func (e *embedded) apply(_ context.Context, _ string, ops []*tidemarkv1.IndexOp) (_ []error, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	batch := e.db.NewIndexedBatch()
	defer func() { err = errors.Join(err, batch.Close()) }()
	for _, op := range ops {
		if err := write(batch, op); err != nil {
			return nil, err
		}
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return nil, err
	}
	return make([]error, len(ops)), nil
}

// write writes a document, unless the batch or the database has this version or a newer one.
func write(batch *pebble.Batch, op *tidemarkv1.IndexOp) error {
	key := documentKey(op.GetWorkspaceId(), op.GetFileId())
	value, closer, err := batch.Get(key)
	if err == nil {
		old := new(tidemarkv1.IndexOp)
		_, message, _ := bytes.Cut(value, []byte{0})
		err = errors.Join(proto.Unmarshal(message, old), closer.Close())
		if err != nil || old.GetVersion() >= op.GetVersion() {
			return err
		}
	} else if !errors.Is(err, pebble.ErrNotFound) {
		return err
	}
	value, err = proto.MarshalOptions{}.MarshalAppend([]byte(fileWords(op)+"\x00"), op)
	return errors.Join(err, batch.Set(key, value, nil))
}

func (e *embedded) find(ctx context.Context, f filter) (hits []hit, err error) {
	prefix := documentKey(f.workspace, "")
	scan, err := e.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: localstore.PrefixEnd(prefix)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, scan.Close()) }()
	more := scan.SeekGE(documentKey(f.workspace, f.after))
	for ; more && len(hits) < f.limit && ctx.Err() == nil; more = scan.Next() {
		file, err := match(scan.Value(), f)
		if err != nil {
			return nil, err
		}
		if file != nil && file.GetFileId() != f.after {
			hits = append(hits, hit{file.GetWorkspaceId(), file.GetFileId(), codecs.AppendFile(nil, file)})
		}
	}
	return hits, ctx.Err()
}

// match returns the file of a document that matches, else nil.
func match(value []byte, f filter) (*tidemarkv1.FileState, error) {
	text, message, _ := bytes.Cut(value, []byte{0})
	for _, word := range f.words {
		if !bytes.HasPrefix(text, []byte(word)) && !bytes.Contains(text, []byte(" "+word)) {
			return nil, nil
		}
	}
	// Most documents need not be decoded: the encoding contains each text as it is.
	if !bytes.Contains(message, []byte(f.pathPrefix)) || !bytes.Contains(message, []byte(f.mime)) {
		return nil, nil
	}
	op := new(tidemarkv1.IndexOp)
	err := proto.Unmarshal(message, op)
	file := op.GetFile()
	if err != nil || file == nil || !strings.HasPrefix(file.GetPath(), f.pathPrefix) ||
		f.mime != "" && f.mime != file.GetMime() || !slices.Contains(f.statuses, file.GetStatus()) {
		return nil, err
	}
	return file, nil
}

// build empties the index. Other sinks of this process go on writing to it.
func (e *embedded) build(context.Context) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return serving, e.db.DeleteRange([]byte{0}, []byte{0xff}, pebble.Sync)
}

func (e *embedded) finish(context.Context) error        { return e.db.Set(completeKey, nil, pebble.Sync) }
func (e *embedded) serve(context.Context, string) error { return nil }
func (e *embedded) check(context.Context) error         { return nil }
func (e *embedded) refresh(context.Context) error       { return nil }
func (e *embedded) close() error                        { return e.db.Close() }

func (e *embedded) incomplete() bool {
	_, closer, err := e.db.Get(completeKey)
	return err != nil || closer.Close() != nil
}

// pebbleLog logs Pebble's errors, without its progress messages.
type pebbleLog struct{ log *slog.Logger }

func (l pebbleLog) Infof(string, ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.log.Error("embedded search index", "error", fmt.Sprintf(format, args...))
}

// Fatalf is called by Pebble when it cannot go on; it must not return.
func (l pebbleLog) Fatalf(format string, args ...any) {
	panic("embedded search index: " + fmt.Sprintf(format, args...))
}
