// Package search keeps a search index of all active files: in OpenSearch or Elasticsearch, or embedded in the process
// for `tidemark dev`.
//
// Each file is one document, whose version is the file's own. An index refuses a version that is not newer than the one
// it has, so records may come again, late, or from a topic that was created again. A file that is deleted becomes a
// document without content, a tombstone. It keeps the version: OpenSearch forgets that of a document that it deletes
// after index.gc_deletes, 60 s, and an older record could then restore the file.
package search

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
)

// Embedded is the URL of the embedded index.
const Embedded = "embedded"

// Config configures the sink. The flags are named in its errors.
type Config struct {
	URL      string // --search-url: http://host:port or https://host:port, or Embedded
	Index    string // --search-index: an alias
	Username string // --search-username: empty: no authentication
	Password string
	TLS      *tls.Config // of an https URL; nil: the system's authorities
	Dir      string      // of the embedded index
	Log      *slog.Logger
}

// A Sink is a sinks.Sink of index records, and answers queries. It is safe for concurrent use.
type Sink struct{ index index }

// An index holds the newest document of every file.
type index interface {
	// apply writes documents in order, to the index that serves or to one that build returned. A record without a file
	// is a tombstone. An outcome is nil if the index has this version or a newer one now, a *sinks.Rejected, or an
	// error that a retry can mend. With an error, the documents after the outcomes are not known to be written.
	apply(ctx context.Context, to string, ops []*tidemarkv1.IndexOp) (outcomes []error, err error)
	// find returns documents that match, ordered by the bytes of the file id.
	find(ctx context.Context, f filter) ([]hit, error)
	check(ctx context.Context) error
	refresh(ctx context.Context) error
	// build creates an empty index. serve lets it replace the one that serves, in one step. finish ends the rebuild.
	build(ctx context.Context) (name string, err error)
	serve(ctx context.Context, name string) error
	finish(ctx context.Context) error
	incomplete() bool
	close() error
}

const serving = "" // the index that serves

// New returns a sink. It opens the embedded index, and connects to nothing.
func New(c Config) (*Sink, error) {
	if c.URL == Embedded {
		if c.Dir == "" {
			return nil, errors.New("--search-url embedded needs a folder: set --data")
		}
		store, err := openEmbedded(c.Dir, c.Log)
		if err != nil {
			return nil, fmt.Errorf("open the embedded search index: %w", err)
		}
		return &Sink{store}, nil
	}
	u, err := url.Parse(c.URL)
	switch {
	case err == nil && u.User != nil:
		return nil, errors.New("--search-url contains a user or password: set --search-username and " +
			"TIDEMARK_SEARCH_PASSWORD instead")
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("--search-url must be http://host:port, https://host:port or embedded") // may be secret
	case (c.Username == "") != (c.Password == ""):
		return nil, errors.New("search needs both or neither of --search-username and TIDEMARK_SEARCH_PASSWORD")
	case !validAlias(c.Index):
		return nil, fmt.Errorf("--search-index %q cannot be an alias: use lower-case letters, digits, - and _, "+
			"beginning with a letter", c.Index)
	}
	return &Sink{newServer(c, u)}, nil
}

// Check creates the index if it does not exist, and returns an error if it cannot be used.
func (s *Sink) Check(ctx context.Context) error { return s.index.check(ctx) }

// Refresh makes all documents that are applied visible to queries. OpenSearch does so each second by itself.
func (s *Sink) Refresh(ctx context.Context) error { return s.index.refresh(ctx) }

// Incomplete reports whether the embedded index was created or wiped, and not rebuilt since. Documents of records that
// were delivered before are then missing, until Rebuild ends.
func (s *Sink) Incomplete() bool { return s.index.incomplete() }

// Close closes the embedded index.
func (s *Sink) Close() error { return s.index.close() }

// Deliver writes index records.
func (s *Sink) Deliver(ctx context.Context, batch []*sinks.Record) error {
	return target{s.index, serving}.Deliver(ctx, batch)
}

// Rebuild fills a new index from fastio-index, and replaces the present one by it, while sinks go on in any process.
// The caller's function delivers to a sink the records that it has not delivered yet, up to the topic's end as of the
// call. It is called twice. The first call fills the index. After the replacement every other sink writes to the new
// index, because all of them write to the alias. What one of them wrote to the old index had been read from the topic
// before, so it is below the topic's end after the replacement: the second call delivers it. Both calls and the other
// sinks may write the same file in any order, since the newest version remains.
//
// A rebuild that is interrupted leaves its index unused, and another one begins with a new index. In OpenSearch the old
// index is kept, so that the alias can be moved back; the log says how to delete it. The embedded index is emptied and
// filled in place.
func (s *Sink) Rebuild(ctx context.Context, deliverNew func(context.Context, sinks.Sink) error) error {
	name, err := s.index.build(ctx)
	if err != nil {
		return fmt.Errorf("create a new search index: %w", err)
	}
	if err := deliverNew(ctx, target{s.index, name}); err != nil {
		return fmt.Errorf("fill the new search index: %w", err)
	}
	if err := s.index.serve(ctx, name); err != nil {
		return fmt.Errorf("replace the search index by the new one: %w", err)
	}
	if err := deliverNew(ctx, s); err != nil {
		return fmt.Errorf("complete the new search index, which serves already (rebuild again): %w", err)
	}
	return s.index.finish(ctx)
}

// A target is a sinks.Sink that writes to the index of a name.
type target struct {
	index index
	name  string
}

func (t target) Deliver(ctx context.Context, batch []*sinks.Record) error {
	partial := &sinks.Partial{Rejected: map[*sinks.Record]*sinks.Rejected{}}
	ops, records := make([]*tidemarkv1.IndexOp, 0, len(batch)), make([]*sinks.Record, 0, len(batch))
	for _, r := range batch {
		op, err := decode(r.Value)
		if err != nil {
			partial.Rejected[r] = &sinks.Rejected{Reason: "not a valid index record", Answer: err.Error()}
			continue
		}
		ops, records = append(ops, op), append(records, r)
	}
	outcomes, err := t.index.apply(ctx, t.name, ops)
	if _, tooLarge := errors.AsType[*sinks.Rejected](err); tooLarge || err != nil && len(outcomes) == 0 {
		return err
	}
	for i, outcome := range outcomes {
		if rejected, ok := errors.AsType[*sinks.Rejected](outcome); ok {
			partial.Rejected[records[i]] = rejected
		} else if outcome != nil {
			partial.Again, partial.Err = append(partial.Again, records[i]), outcome
		}
	}
	if err != nil {
		partial.Again, partial.Err = append(partial.Again, records[len(outcomes):]...), err
	}
	if len(partial.Rejected)+len(partial.Again) == 0 {
		return nil
	}
	return partial
}

// decode reads an index record. One that contradicts itself could change a document of another workspace.
func decode(value []byte) (*tidemarkv1.IndexOp, error) {
	message, err := codecs.Index{}.Decode(value)
	if err != nil {
		return nil, err
	}
	op := message.(*tidemarkv1.IndexOp)
	file, workspace := op.GetFileId(), op.GetWorkspaceId()
	upsert := op.GetOp() == tidemarkv1.IndexOp_OP_UPSERT
	switch {
	case workspace == "" || file == "" || op.GetId() != tidemarkv1.JoinKey(workspace, file):
		return nil, fmt.Errorf("id %q is not that of file_id %q in workspace_id %q", op.GetId(), file, workspace)
	case op.GetVersion() < 1:
		return nil, fmt.Errorf("version is %d, want 1 or more", op.GetVersion())
	case upsert != (op.File != nil), !upsert && op.GetOp() != tidemarkv1.IndexOp_OP_DELETE:
		return nil, errors.New("want op upsert with a file, or op delete without one")
	case upsert && (op.File.GetWorkspaceId() != workspace || op.File.GetFileId() != file ||
		op.File.GetVersion() != op.GetVersion()):
		return nil, errors.New("workspace_id, file_id or version differ from those of the file")
	}
	if op.File.GetStatus() == tidemarkv1.Status_STATUS_ERASED {
		op.File = nil
	}
	return op, nil
}
