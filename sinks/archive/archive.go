// Package archive stores the records of a topic as Parquet objects in an S3 bucket or a folder.
//
// An object has consecutive records of one partition. Its name is made of topic, partition and first offset, and it is
// created only if it does not exist. So what an object has does not change, and two owners of a partition, or a crash
// after an upload, give neither duplicates nor gaps: the later owner finds the object and continues behind it. See
// docs/decisions/0025-archive.md.
//
// The archive is no sinks.Sink, because an object is larger than a batch. It consumes partitions: see Partition.
package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/parquetlog"
	"tidemark/sinks"
)

const (
	maxWindow  = time.Hour
	maxUploads = 4 // at a time: more are not faster, and each takes memory and a share of the bandwidth
)

// Config is what an archive needs.
type Config struct {
	Location parquetlog.Location
	Topic    string
	Window   time.Duration // of log time, of one object
	Dir      string        // of temporary files: up to 64 MiB for each partition
	// TopicID returns the id of the topic, which is another one after it was deleted and created again.
	TopicID func(ctx context.Context) (string, error)
	// End returns the last stable offset of a partition.
	End func(ctx context.Context, partition int32) (int64, error)
	// Retry calls attempt until it returns nil or a *sinks.Rejected, or ctx ends, and returns its error.
	Retry   func(ctx context.Context, attempt func(ctx context.Context) error) error
	Log     *slog.Logger
	Metrics prometheus.Registerer

	// Limits of one object, and how long after the end of its window it is closed without a further record. Zero is
	// the default. Objects of an archive are the same only with the same limits.
	MaxRecords int
	MaxBytes   int
	Grace      time.Duration
}

// A Partition is one assigned partition of a consumer group: see kafka.AssignedPartition. Next returns control records
// too, as the end of a partition may be one.
type Partition interface {
	Next(ctx context.Context) ([]*kgo.Record, error)
	Handled(last *kgo.Record)
	Begin() int64
	Topic() string
	Number() int32
}

// An Archive stores partitions.
type Archive struct {
	conf     Config
	store    parquetlog.Store
	topicID  string        // set by Check
	encoding sync.Mutex    // one Parquet file at a time, because of the memory
	uploads  chan struct{} // those that are under way
	objects  *prometheus.CounterVec
	records  prometheus.Counter
}

// New checks the configuration. Nothing is connected before Check.
func New(conf Config) (*Archive, error) {
	conf.MaxRecords = cmp.Or(conf.MaxRecords, 250_000)
	conf.MaxBytes = cmp.Or(conf.MaxBytes, 64<<20)
	conf.Grace = cmp.Or(conf.Grace, time.Minute)
	store, err := conf.Location.Open()
	if err != nil {
		return nil, err
	}
	if conf.Window < time.Second || conf.Window > maxWindow {
		return nil, fmt.Errorf("--archive-window %v: want 1s to %v", conf.Window, maxWindow)
	}
	if err := os.MkdirAll(conf.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("create the folder for the archive's temporary files: %w", err)
	}
	count := promauto.With(conf.Metrics)
	return &Archive{
		conf: conf, store: store, uploads: make(chan struct{}, maxUploads),
		objects: count.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_archive_objects_total",
			Help: "Objects that were closed: created, or found in the archive (kept).",
		}, []string{"result"}),
		records: count.NewCounter(prometheus.CounterOpts{
			Name: "tidemark_archive_records_total", Help: "Records in the objects that were created.",
		}),
	}, nil
}

// Check looks up the topic, and writes its id into the archive or compares it with the id there. It does that as
// objects are written, so it finds a missing bucket, wrong credentials and rights, and a server that overwrites.
func (a *Archive) Check(ctx context.Context) (err error) {
	id, err := a.conf.TopicID(ctx)
	if err != nil {
		return err
	}
	a.topicID = id
	_, err = inTime(ctx, func() (struct{}, error) { return struct{}{}, a.check(ctx) })
	return err
}

func (a *Archive) check(ctx context.Context) error {
	found, err := parquetlog.ReadMarker(ctx, a.store, a.conf.Topic)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && found != a.topicID {
		return fmt.Errorf("--archive-url %s: it has objects of an earlier topic %s (id %s, now %s): "+
			"the topic was created again and its offsets start over, so choose another prefix",
			a.conf.Location.URL, a.conf.Topic, found, a.topicID)
	}
	file, err := parquetlog.Temporary(a.conf.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if _, err := file.WriteString(a.topicID + "\n"); err != nil {
		return fmt.Errorf("write a temporary file: %w", err)
	}
	for i := range 2 {
		created, err := a.store.Create(ctx, parquetlog.MarkerName(a.conf.Topic), file)
		if err != nil {
			return err
		}
		if i == 1 && created { // the same bytes
			return fmt.Errorf("--archive-url %s: the server overwrites an object in spite of If-None-Match: *. "+
				"The archive needs a server with conditional writes", a.conf.Location.URL)
		}
	}
	found, err = parquetlog.ReadMarker(ctx, a.store, a.conf.Topic)
	if err == nil && found != a.topicID {
		err = fmt.Errorf("--archive-url %s: another process archives another topic %s there: choose another prefix",
			a.conf.Location.URL, a.conf.Topic)
	}
	return err
}

// inTime calls f. It returns soon after the end of ctx, even if f does not: a system call cannot be cancelled, and one
// to a file server that hangs does not return.
func inTime[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done, late := make(chan result, 1), make(chan struct{})
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, func() { close(late) }) })()
	select {
	case r := <-done:
		return r.value, r.err
	case <-late:
		var none T
		return none, fmt.Errorf("the archive's file system has not answered: %w", ctx.Err())
	}
}

// create writes an object of the spooled records. It returns the object that the archive has then under that name:
// this one, or one that was there.
func (a *Archive) create(ctx context.Context, s *spool, o parquetlog.Object) (kept parquetlog.Object, err error) {
	file, err := a.parquet(ctx, s, o)
	if err != nil {
		return o, err
	}
	defer func() { _ = file.Close() }()
	name := o.Name(s.first)
	var failure error // of the last attempt: Retry may return only that ctx has ended
	err = a.conf.Retry(ctx, func(ctx context.Context) error {
		select {
		case a.uploads <- struct{}{}:
		case <-ctx.Done():
			failure = fmt.Errorf("%d uploads have not ended: %w", maxUploads, ctx.Err())
			return failure
		}
		kept, failure = inTime(ctx, func() (parquetlog.Object, error) {
			defer func() { <-a.uploads }() // of one that hangs: not before it ends
			return a.upload(ctx, name, file, o)
		})
		return failure
	})
	if err != nil {
		return o, fmt.Errorf("store %s: %w", name, cmp.Or(failure, err))
	}
	// The answer to a create may have been lost, so an equal object counts as created.
	if kept == o {
		a.objects.WithLabelValues("created").Inc()
		a.records.Add(float64(s.records))
	} else {
		a.objects.WithLabelValues("kept").Inc()
	}
	a.conf.Log.DebugContext(ctx, "object closed", "name", name, "records", s.records, "kept", kept != o)
	return kept, nil
}

// upload makes one attempt.
func (a *Archive) upload(ctx context.Context, name string, file *os.File, o parquetlog.Object) (
	kept parquetlog.Object, err error,
) {
	created, err := a.store.Create(ctx, name, file)
	if err != nil || created {
		return o, err
	}
	kept, err = parquetlog.Describe(ctx, a.store, name)
	switch {
	case err != nil:
		return kept, fmt.Errorf("it is in the archive already, and was not overwritten: %w", err)
	case !kept.SameStart(o):
		return kept, &sinks.Rejected{
			Reason: fmt.Sprintf("the object %s in %s is of another topic id or partition than %s, %d: "+
				"move it away, or choose another prefix", name, a.conf.Location.URL, o.TopicID, o.Partition),
			Answer: fmt.Sprintf("its footer: %+v", kept),
		}
	}
	return kept, nil
}

// parquet returns a temporary file with the spooled records.
func (a *Archive) parquet(ctx context.Context, s *spool, o parquetlog.Object) (*os.File, error) {
	a.encoding.Lock()
	defer a.encoding.Unlock()
	if ctx.Err() != nil { // a drain does not wait for all partitions
		return nil, ctx.Err()
	}
	file, err := parquetlog.Temporary(a.conf.Dir)
	if err != nil {
		return nil, err
	}
	if err := parquetlog.Write(file, s.all(), o); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("write a temporary file in %s: %w", a.conf.Dir, err)
	}
	return file, nil
}
