// Package search keeps a search index of all active files: in OpenSearch or Elasticsearch, or embedded in the process
// for `tidemark dev`.
//
// Each file is one document, whose version is the file's own. An index refuses a version that is not newer than the one
// it has, so records may come again, late, or from a topic that was created again. A file that is deleted becomes a
// document without content, a tombstone. It keeps the version: OpenSearch forgets that of a document that it deletes
// after index.gc_deletes, 60 s, and an older record could then restore the file.
//
// A prediction about a file is a document of its own, with the version of the file that it is about. Search adds it to
// the file with that version, and to no other: see docs/decisions/0028-predictions-in-search.md.
package search

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"

	"golang.org/x/sync/semaphore"

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
	Log      *slog.Logger

	Predictions string // the name of fastio-predictions
}

// A Sink is a sinks.Sink of index records and predictions, and answers queries. It is safe for concurrent use.
type Sink struct {
	index
	predictions string
	slots       *semaphore.Weighted // one for each batch in memory as documents
}

// maxBatches are in memory as documents, and in requests, at the same time. Other partitions wait with their records.
const maxBatches = 6

// A document is a file, or a prediction about one. A tombstone is a file with ids and version, and without a status.
type document struct {
	file       *tidemarkv1.FileState
	prediction *prediction
}

// A prediction is a record of fastio-predictions. One of a deleted file has no outputs.
type prediction struct {
	WorkspaceID string `json:"workspace_id"`
	FileID      string `json:"file_id"`
	Rule        string `json:"rule"`
	Version     int64  `json:"version"`
	modelAnswer
}

type modelAnswer struct {
	Model        string          `json:"model,omitempty"`
	ModelVersion string          `json:"model_version,omitempty"`
	Outputs      json.RawMessage `json:"outputs,omitempty"`
}

// An index has the newest version of every document.
type index interface {
	// Check creates the index if it does not exist, and returns an error if it cannot be used.
	Check(ctx context.Context) error
	// Refresh makes all documents that are applied visible to queries. OpenSearch does so each second by itself.
	Refresh(ctx context.Context) error
	// rebuild is Sink.Rebuild.
	rebuild(ctx context.Context, deliverNew func(context.Context, index) error) error
	// Incomplete reports whether the index needs Rebuild before it can answer queries: the embedded one at each start.
	Incomplete() bool

	// apply writes documents in order. An outcome is nil if the index has this version or a newer one now, a
	// *sinks.Rejected, or an error that a retry can fix. With an error, none is known to be written.
	apply(ctx context.Context, documents []document) (outcomes []error, err error)
	// find returns files that match, ordered by the bytes of the file id.
	find(ctx context.Context, f filter) ([]*tidemarkv1.FileState, error)
	// predicted returns the newest predictions of each rule about files of a workspace, in any order.
	predicted(ctx context.Context, workspace string, fileIDs []string) ([]*prediction, error)
}

// New returns a sink. It connects to nothing.
func New(c Config) (*Sink, error) {
	if c.URL == Embedded {
		return newSink(newEmbedded(), c.Predictions), nil
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.RawQuery != "", u.Fragment != "",
		u.User != nil: // err and the URL may contain a password
		return nil, errors.New("--search-url must be http://host:port, https://host:port or embedded; " +
			"user and password are --search-username and TIDEMARK_SEARCH_PASSWORD")
	case (c.Username == "") != (c.Password == ""):
		return nil, errors.New("search needs both or neither of --search-username and TIDEMARK_SEARCH_PASSWORD")
	case !validAlias(c.Index):
		return nil, fmt.Errorf("--search-index %q cannot be an alias: use lower-case letters, digits, - and _, "+
			"beginning with a letter", c.Index)
	}
	return newSink(newServer(c, u), c.Predictions), nil
}

func newSink(i index, predictions string) *Sink {
	return &Sink{i, predictions, semaphore.NewWeighted(maxBatches)}
}

// Rebuild fills a new index, and replaces the present one by it, while sinks go on in any process. deliverNew delivers
// to a sink the records of its topics that it has not delivered yet, up to their ends as of the call. It and the other
// sinks may write the same document in any order, since the newest version remains.
func (s *Sink) Rebuild(ctx context.Context, deliverNew func(context.Context, sinks.Sink) error) error {
	return s.rebuild(ctx, func(ctx context.Context, to index) error {
		return deliverNew(ctx, newSink(to, s.predictions))
	})
}

// Deliver writes index records and predictions.
func (s *Sink) Deliver(ctx context.Context, batch []*sinks.Record) error {
	if err := s.slots.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("wait for one of %d requests: %w", maxBatches, err)
	}
	defer s.slots.Release(1)
	partial := &sinks.Partial{Rejected: map[*sinks.Record]*sinks.Rejected{}}
	documents, records := make([]document, 0, len(batch)), make([]*sinks.Record, 0, len(batch))
	for _, r := range batch {
		var d document
		var err error
		if r.Topic == s.predictions {
			d.prediction, err = decodePrediction(r.Value)
		} else {
			d.file, err = decode(r.Value)
		}
		switch {
		case err != nil:
			partial.Rejected[r] = &sinks.Rejected{Reason: "not a valid record of " + r.Topic + ": " + err.Error()}
		case d == document{}:
			partial.Skipped++
		default:
			documents, records = append(documents, d), append(records, r)
		}
	}
	if len(documents) == 0 {
		return partial
	}
	outcomes, err := s.apply(ctx, documents)
	if err != nil {
		return err
	}
	for i, outcome := range outcomes {
		if rejected, ok := errors.AsType[*sinks.Rejected](outcome); ok {
			partial.Rejected[records[i]] = rejected
		} else if outcome != nil {
			partial.Again, partial.Err = append(partial.Again, records[i]), outcome
		}
	}
	if len(partial.Rejected)+len(partial.Again)+partial.Skipped == 0 {
		return nil
	}
	return partial
}

// decode returns the document of an index record. One that contradicts itself could change that of another workspace.
func decode(value []byte) (*tidemarkv1.FileState, error) {
	message, err := codecs.Index{}.Decode(value)
	if err != nil {
		return nil, err
	}
	op := message.(*tidemarkv1.IndexOp)
	file := op.GetFile()
	if file == nil || file.GetStatus() == tidemarkv1.Status_STATUS_ERASED {
		file = &tidemarkv1.FileState{WorkspaceId: op.GetWorkspaceId(), FileId: op.GetFileId(), Version: op.GetVersion()}
	}
	switch {
	case op.GetOp() == tidemarkv1.IndexOp_OP_UNSPECIFIED,
		(op.GetOp() == tidemarkv1.IndexOp_OP_UPSERT) != (op.GetFile() != nil):
		return nil, errors.New("want op upsert with a file, or op delete without one")
	case file.GetWorkspaceId() == "", file.GetFileId() == "", file.GetVersion() < 1,
		op.GetId() != tidemarkv1.JoinKey(file.GetWorkspaceId(), file.GetFileId()), op.GetVersion() != file.GetVersion():
		return nil, fmt.Errorf("id %q and version %d are not those of the file", op.GetId(), op.GetVersion())
	}
	return file, nil
}

// maxOutputs is the most bytes of outputs of a document: a page of 1,000 files has those of all their predictions.
const maxOutputs = 8 << 10

// decodePrediction returns the document of a prediction, nil for one of a rule without "into: search".
func decodePrediction(value []byte) (*prediction, error) {
	var record struct {
		Op, ID, Into string
		prediction
	}
	if err := json.Unmarshal(value, &record); err != nil {
		return nil, err
	}
	p := &record.prediction
	switch {
	case record.Into != "search":
		return nil, nil
	case p.WorkspaceID == "", p.FileID == "", p.Rule == "", p.Version < 1,
		record.ID != tidemarkv1.JoinKey(p.WorkspaceID, p.FileID), (record.Op == "upsert") != (p.Outputs != nil):
		return nil, errors.New("want op upsert with outputs, or op delete without them, and the id of the file")
	case len(p.Outputs) > maxOutputs:
		return nil, fmt.Errorf("%d bytes of outputs, a search index has at most %d: list fewer outputs in the rule",
			len(p.Outputs), maxOutputs)
	}
	return p, nil
}
