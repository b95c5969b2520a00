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
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/archive"
	"tidemark/sinks"
)

// Defaults and limits of Config.
const (
	DefaultWindow = 10 * time.Minute
	maxWindow     = time.Hour
)

// Config is what an archive needs.
type Config struct {
	Place  archive.Place
	Topic  string
	Window time.Duration // of log time, of one object; 0: DefaultWindow
	Dir    string        // of temporary files: up to 64 MiB for each partition
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

// A Partition is one assigned partition of a consumer group.
type Partition interface {
	// Next returns the records that follow, in order, at least one; or an error when ctx ended (a deadline too). It
	// returns control records too: the end of a partition may be one.
	Next(ctx context.Context) ([]*kgo.Record, error)
	// Handled says that this record and all before it need not come again: the offset after it is committed soon.
	// Nothing else is committed.
	Handled(last *kgo.Record)
	// Begin returns the committed offset with which the partition was assigned; negative if there was none.
	Begin() int64
	Topic() string
	Number() int32
}

// An Archive stores partitions.
type Archive struct {
	conf    Config
	store   archive.Store
	topicID string        // set by Check
	writers chan struct{} // bounds the Parquet files that are written at a time, and so the memory
	objects *prometheus.CounterVec
	records prometheus.Counter
	bytes   prometheus.Counter
}

// New checks the configuration. Nothing is connected before Check.
func New(conf Config) (*Archive, error) {
	conf.Window = cmp.Or(conf.Window, DefaultWindow)
	conf.MaxRecords = cmp.Or(conf.MaxRecords, 250_000)
	conf.MaxBytes = cmp.Or(conf.MaxBytes, 64<<20)
	conf.Grace = cmp.Or(conf.Grace, time.Minute)
	if conf.Window < time.Second || conf.Window > maxWindow {
		return nil, fmt.Errorf("--archive-window %v: want 1s to %v", conf.Window, maxWindow)
	}
	if err := os.MkdirAll(conf.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("create the folder for the archive's temporary files: %w", err)
	}
	store, err := conf.Place.Open()
	if err != nil {
		return nil, err
	}
	count := promauto.With(conf.Metrics)
	return &Archive{
		conf: conf, store: store, writers: make(chan struct{}, 1),
		objects: count.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_archive_objects_total",
			Help: "Objects that were closed: created, or found in the archive (kept).",
		}, []string{"result"}),
		records: count.NewCounter(prometheus.CounterOpts{
			Name: "tidemark_archive_records_total", Help: "Records in the objects that were created.",
		}),
		bytes: count.NewCounter(prometheus.CounterOpts{
			Name: "tidemark_archive_bytes_total", Help: "Size of the objects that were created.",
		}),
	}, nil
}

// Check looks up the topic, and writes its id into the archive or compares it with the id there. It does that as
// objects are written, so it finds a missing bucket, wrong credentials and rights, and a server that overwrites.
func (a *Archive) Check(ctx context.Context) error {
	id, err := a.conf.TopicID(ctx)
	if err != nil {
		return err
	}
	marker := archive.MarkerName(a.conf.Topic)
	found, err := archive.ReadMarker(ctx, a.store, marker)
	if err != nil && !errors.Is(err, archive.ErrMissing) {
		return err
	}
	if err == nil && found != id {
		return fmt.Errorf("--archive-url %s: it has objects of an earlier topic %s (id %s, now %s): "+
			"the topic was created again and its offsets start over, so choose another prefix",
			a.conf.Place.URL, a.conf.Topic, found, id)
	}
	file, err := archive.Temporary(a.conf.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if _, err := file.WriteString(id + "\n"); err != nil {
		return fmt.Errorf("write a temporary file: %w", err)
	}
	if _, err := a.store.Create(ctx, marker, file); err != nil {
		return err
	}
	switch created, err := a.store.Create(ctx, marker, file); {
	case err != nil:
		return err
	case created: // the same bytes
		return fmt.Errorf("--archive-url %s: the server overwrites an object in spite of If-None-Match: *. "+
			"The archive needs a server with conditional writes", a.conf.Place.URL)
	}
	if found, err = archive.ReadMarker(ctx, a.store, marker); err == nil && found != id {
		err = fmt.Errorf("--archive-url %s: another process archives another topic %s there: choose another prefix",
			a.conf.Place.URL, a.conf.Topic)
	}
	a.topicID = id
	return err
}

// create writes an object of the spooled records. It returns the object that the archive has then under that name:
// this one, or one that was there.
func (a *Archive) create(ctx context.Context, s *spool, o archive.Object) (kept archive.Object, err error) {
	file, err := a.parquet(ctx, s, o)
	if err != nil {
		return o, err
	}
	defer func() { _ = file.Close() }()
	name := o.Name(s.first)
	err = a.conf.Retry(ctx, func(ctx context.Context) error {
		created, err := a.store.Create(ctx, name, file)
		if err != nil {
			return err
		}
		if created {
			kept = o
			return nil
		}
		kept, err = archive.Describe(ctx, a.store, name)
		switch {
		case err != nil:
			return fmt.Errorf("%s is in the archive already, and was not overwritten: %w", name, err)
		case !kept.SameStart(o):
			return &sinks.Rejected{
				Reason: fmt.Sprintf("%s in %s is of another topic id or partition than %s, %d: "+
					"move it away, or choose another prefix", name, a.conf.Place.URL, o.TopicID, o.Partition),
				Answer: fmt.Sprintf("its footer: %+v", kept),
			}
		}
		return nil
	})
	if err != nil {
		return o, err
	}
	size, err := file.Seek(0, 2)
	if err != nil {
		return o, fmt.Errorf("size of a temporary file: %w", err)
	}
	// The answer to a create may have been lost, so an equal object counts as created.
	if kept == o {
		a.objects.WithLabelValues("created").Inc()
		a.records.Add(float64(s.records))
		a.bytes.Add(float64(size))
	} else {
		a.objects.WithLabelValues("kept").Inc()
	}
	a.conf.Log.DebugContext(ctx, "object closed", "name", name, "records", s.records, "bytes", size, "kept", kept != o)
	return kept, nil
}

// parquet returns a temporary file with the spooled records.
func (a *Archive) parquet(ctx context.Context, s *spool, o archive.Object) (*os.File, error) {
	select {
	case a.writers <- struct{}{}:
		defer func() { <-a.writers }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	file, err := archive.Temporary(a.conf.Dir)
	if err != nil {
		return nil, err
	}
	if err := archive.Write(file, s.all(), o); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("write a temporary file in %s: %w", a.conf.Dir, err)
	}
	return file, nil
}
