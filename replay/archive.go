package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/parquetlog"
)

// An Archive is an archived topic.
type Archive struct {
	Topic   string
	TopicID string // of the topic whose offsets the objects have
	store   parquetlog.Store
	objects map[int32][]listed // by partition, in order
	dir     string
}

type listed struct {
	first int64
	name  string
}

// OpenArchive lists the objects of a topic. Files are downloaded into dir, one at a time for each call of Read.
func OpenArchive(ctx context.Context, location parquetlog.Location, topic, dir string) (*Archive, error) {
	s, err := location.Open()
	if err != nil {
		return nil, err
	}
	a := &Archive{Topic: topic, store: s, dir: dir, objects: map[int32][]listed{}}
	a.TopicID, err = parquetlog.ReadMarker(ctx, s, topic)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("--archive %s: there is no archive of topic %s", location.URL, topic)
	}
	if err != nil {
		return nil, err
	}
	names, err := s.List(ctx, topic)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if partition, first, ok := parquetlog.ParseName(topic, name); ok {
			a.objects[partition] = append(a.objects[partition], listed{first, name})
		}
	}
	for _, objects := range a.objects {
		slices.SortFunc(objects, func(a, b listed) int { return cmp.Compare(a.first, b.first) })
	}
	return a, nil
}

// Span returns the offsets of a partition that the archive has; found is false if it has none.
func (a *Archive) Span(ctx context.Context, partition int32) (begin, end int64, found bool, err error) {
	objects := a.objects[partition]
	if len(objects) == 0 {
		return 0, 0, false, nil
	}
	var ends [2]parquetlog.Object
	for i, o := range []listed{objects[0], objects[len(objects)-1]} {
		if ends[i], err = parquetlog.Describe(ctx, a.store, o.name); err == nil {
			err = a.check(o.name, ends[i])
		}
		if err != nil {
			return 0, 0, false, err
		}
	}
	return ends[0].Begin, ends[1].End, true, nil
}

// check returns an error if an object is not of this archive.
func (a *Archive) check(name string, o parquetlog.Object) error {
	if o.Topic != a.Topic || o.TopicID != a.TopicID {
		return fmt.Errorf("%s is of topic %s with id %s, and the archive of id %s: remove it", name, o.Topic,
			o.TopicID, a.TopicID)
	}
	return nil
}

// Read calls each for the archived records of a partition from an offset on, in order. A missing object is an error.
func (a *Archive) Read(ctx context.Context, partition int32, from int64, each func(*kgo.Record) error) error {
	objects, begin := a.objects[partition], 0
	for i, o := range objects {
		if o.first <= from {
			begin = i
		}
	}
	end := int64(-1) // of the object before
	for _, o := range objects[begin:] {
		local, object, records, err := a.download(ctx, o.name)
		if err != nil {
			return err
		}
		if end >= 0 && object.Begin > end {
			err = fmt.Errorf("the archive lacks the offsets %d to %d of partition %d: an object before %s is missing",
				end, object.Begin-1, partition, o.name)
		}
		from = max(from, end)
		for r, failed := range records {
			if err = cmp.Or(err, failed, ctx.Err()); err == nil && r.Offset >= from {
				err = each(r)
			}
			if err != nil {
				break
			}
		}
		_ = local.Close()
		if err != nil {
			return fmt.Errorf("read %s: %w", o.name, err)
		}
		end = max(end, object.End)
	}
	return nil
}

// download copies an object into a temporary file, for which its server is asked several times.
func (a *Archive) download(ctx context.Context, name string) (
	local *os.File, o parquetlog.Object, records iter.Seq2[*kgo.Record, error], err error,
) {
	if local, err = parquetlog.Temporary(a.dir); err != nil {
		return nil, o, nil, err
	}
	_, err = backoff.Retry(ctx, func() (int64, error) {
		in, err := a.store.Open(ctx, name)
		if err != nil {
			return 0, err
		}
		defer func() { _ = in.Close() }()
		if _, err := local.Seek(0, io.SeekStart); err != nil {
			return 0, backoff.Permanent(err)
		}
		return io.Copy(local, in)
	}, backoff.WithMaxTries(6))
	if err == nil {
		o, records, err = parquetlog.Read(local)
	}
	if err == nil {
		err = a.check(name, o)
	}
	if err != nil {
		_ = local.Close()
		return nil, o, nil, fmt.Errorf("download %s: %w", name, err)
	}
	return local, o, records, nil
}
