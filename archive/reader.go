package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/cenkalti/backoff/v5"
	"github.com/parquet-go/parquet-go"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Reader reads an archived topic.
type Reader struct {
	Topic   string
	TopicID string // of the topic whose offsets the objects have
	store   Store
	objects map[int32][]listed // by partition, in order
	dir     string
}

type listed struct {
	first int64
	name  string
}

// OpenReader lists the objects of a topic. Files are downloaded into dir, one at a time for each call of Read.
func OpenReader(ctx context.Context, place Place, topic, dir string) (*Reader, error) {
	s, err := place.Open()
	if err != nil {
		return nil, err
	}
	r := &Reader{Topic: topic, store: s, dir: dir, objects: map[int32][]listed{}}
	r.TopicID, err = ReadMarker(ctx, s, MarkerName(topic))
	if errors.Is(err, ErrMissing) {
		return nil, fmt.Errorf(flag+" %s: there is no archive of topic %s", place.URL, topic)
	}
	if err != nil {
		return nil, err
	}
	for name, err := range s.List(ctx, topic) {
		if err != nil {
			return nil, err
		}
		if partition, first, ok := parseName(topic, name); ok {
			r.objects[partition] = append(r.objects[partition], listed{first, name})
		}
	}
	for _, objects := range r.objects {
		slices.SortFunc(objects, func(a, b listed) int { return int(max(-1, min(1, a.first-b.first))) })
	}
	return r, nil
}

// Span returns the offsets of a partition that the archive has; found is false if it has none.
func (r *Reader) Span(ctx context.Context, partition int32) (begin, end int64, found bool, err error) {
	objects := r.objects[partition]
	if len(objects) == 0 {
		return 0, 0, false, nil
	}
	first, err := r.describe(ctx, objects[0].name)
	if err != nil {
		return 0, 0, false, err
	}
	last, err := r.describe(ctx, objects[len(objects)-1].name)
	return first.Begin, last.End, true, err
}

// describe reads a footer, and checks that the object is of this archive.
func (r *Reader) describe(ctx context.Context, name string) (Object, error) {
	o, err := Describe(ctx, r.store, name)
	if err != nil {
		return o, fmt.Errorf("read the footer of %s: %w", name, err)
	}
	if o.Topic != r.Topic || o.TopicID != r.TopicID {
		return o, fmt.Errorf("%s is of topic %s with id %s, and the archive of id %s: remove it", name, o.Topic,
			o.TopicID, r.TopicID)
	}
	return o, nil
}

// Read calls each for the archived records of a partition from an offset on, in order. A missing object is an error.
func (r *Reader) Read(ctx context.Context, partition int32, from int64, each func(*kgo.Record) error) error {
	objects, begin := r.objects[partition], 0
	for i, o := range objects {
		if o.first <= from {
			begin = i
		}
	}
	end := int64(-1) // of the object before
	for _, o := range objects[begin:] {
		object, err := r.describe(ctx, o.name)
		if err != nil {
			return err
		}
		if end >= 0 && object.Begin > end {
			return fmt.Errorf("the archive lacks the offsets %d to %d of partition %d: an object before %s is missing",
				end, object.Begin-1, partition, o.name)
		}
		from = max(from, end)
		if err := r.readObject(ctx, o.name, from, each); err != nil {
			return err
		}
		end = max(end, object.End)
	}
	return nil
}

// download copies an object into a temporary file, for which its server is asked several times.
func (r *Reader) download(ctx context.Context, name string) (*os.File, error) {
	local, err := Temporary(r.dir)
	if err != nil {
		return nil, err
	}
	_, err = backoff.Retry(ctx, func() (int64, error) {
		in, _, err := r.store.Open(ctx, name)
		if err != nil {
			return 0, err
		}
		defer in.Close()
		if _, err := local.Seek(0, io.SeekStart); err != nil {
			return 0, backoff.Permanent(err)
		}
		return io.Copy(local, in)
	}, backoff.WithMaxTries(6))
	if err != nil {
		_ = local.Close()
		return nil, fmt.Errorf("download %s: %w", name, err)
	}
	return local, nil
}

// readObject calls each for the records of an object from an offset on.
func (r *Reader) readObject(ctx context.Context, name string, from int64, each func(*kgo.Record) error) error {
	local, err := r.download(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = local.Close() }()
	size, err := local.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("size of a temporary file: %w", err)
	}
	file, _, err := openParquet(local, size)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	reader := parquet.NewGenericReader[row](file)
	defer func() { _ = reader.Close() }()
	for rows := make([]row, 256); ; clear(rows) {
		n, err := reader.Read(rows)
		for i := range rows[:n] {
			if rows[i].Offset < from {
				continue
			}
			if err := each(rows[i].record(r.Topic)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
}
