package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// maxSource bounds a file of tokens, and an answer with keys.
const maxSource = 1 << 20

// fileInterval is how often a file is read again. Its bytes are compared: a time of change can be too coarse.
const fileInterval = time.Second

// An emptyError says that a source is valid, and has no token or key. It is refused at first. Later it replaces the
// value: the last one was withdrawn.
type emptyError struct{ error }

// A reloaded value is parsed from a source that changes: a file or a URL. Nothing runs in the background: a request
// that finds the value too old reads the source. A source that fails leaves the value as it is.
type reloaded[T any] struct {
	name  string // of the source, for the log
	read  func(context.Context) ([]byte, error)
	parse func([]byte) (T, error)
	log   *slog.Logger
	now   func() time.Time

	mu     sync.Mutex // of one reader of the source
	bytes  []byte
	logged string // the failure that was logged last

	value atomic.Pointer[T]         // nil: not read yet
	tried atomic.Pointer[time.Time] // when the source was read last, with its monotonic time; nil: never
}

// get returns the value, nil if it could never be read. The source is read again if that was done longer ago than
// limit. Other requests use the value as it is meanwhile, unless they wait for a newer one.
func (r *reloaded[T]) get(ctx context.Context, limit time.Duration, wait bool) *T {
	value := r.value.Load()
	switch {
	case r.age() < limit:
		return value
	case value == nil || wait:
		r.mu.Lock()
	case !r.mu.TryLock():
		return value
	}
	defer r.mu.Unlock()
	if r.age() >= limit {
		if err := r.load(ctx); err != nil {
			r.failed(ctx, err)
		}
	}
	return r.value.Load()
}

// load reads the source. The caller holds the lock, or is alone.
func (r *reloaded[T]) load(ctx context.Context) error {
	defer func() { r.tried.Store(new(r.now())) }()
	data, err := r.read(ctx)
	if err != nil {
		return err
	}
	if r.value.Load() != nil && bytes.Equal(data, r.bytes) {
		r.logged = ""
		return nil
	}
	value, err := r.parse(data)
	_, empty := errors.AsType[*emptyError](err)
	switch withdrawn := empty && r.value.Load() != nil; {
	case withdrawn:
		r.log.ErrorContext(ctx, "reloaded, nothing is valid any more", "source", r.name, "error", err.Error())
	case err != nil:
		return err
	case r.value.Load() != nil:
		r.log.InfoContext(ctx, "reloaded", "source", r.name)
	}
	r.bytes, r.logged = data, ""
	r.value.Store(&value)
	return nil
}

// age is the time since the source was read last, by the monotonic clock: a wall clock that is set back must not stop
// reloads.
func (r *reloaded[T]) age() time.Duration {
	tried := r.tried.Load()
	if tried == nil {
		return math.MaxInt64
	}
	return r.now().Sub(*tried)
}

// failed logs a failure once.
func (r *reloaded[T]) failed(ctx context.Context, err error) {
	if text := err.Error(); text != r.logged {
		r.logged = text
		r.log.ErrorContext(ctx, "cannot reload, the values read before stay valid", "source", r.name, "error", text)
	}
}

func readFile(path string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close() //nolint:errcheck // nothing was written
		return readBounded(file, path)
	}
}

func readBounded(from io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, maxSource+1))
	if err == nil && len(data) > maxSource {
		err = fmt.Errorf("%s: longer than %d bytes", name, maxSource)
	}
	return data, err
}
