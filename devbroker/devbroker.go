// Package devbroker is a Kafka broker inside this process, for `tidemark dev` and for tests.
//
// It promises what a developer expects of a broker: any Kafka client can connect, acknowledged records and committed offsets
// are there again after a restart and after kill -9, and two processes never share a folder. It refuses to be more: it keeps
// the page cache's promise only, so records acknowledged in the moments before a power loss may be gone; it has one broker and
// no replication; it listens on loopback only, because it asks nobody who they are. Topics come from requests, never from
// naming them.
package devbroker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Config is what Start needs. The zero value is a broker in memory on a free port.
type Config struct {
	Dir        string        // where data is kept; empty: in memory
	Addr       string        // host:port on loopback; empty: 127.0.0.1 and a free port
	Compaction time.Duration // how often compacted topics are compacted; zero: every 5 minutes
	Log        *slog.Logger  // nil: nothing is logged
}

// A Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
	unlock  func() error
	stop    context.CancelFunc
	done    chan struct{}
	err     error
}

// Start runs a broker until Close, or until ctx ends.
func Start(ctx context.Context, c Config) (*Broker, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	if c.Compaction == 0 {
		c.Compaction = 5 * time.Minute
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	listener, err := listen(c.Addr)
	if err != nil {
		return nil, err
	}
	b := &Broker{addr: listener.Addr().String(), unlock: func() error { return nil }, done: make(chan struct{})}
	options := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID("tidemark-dev"),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return listener, nil }),
		kfake.WithLogger(logger{c.Log}),
	}
	if c.Dir != "" {
		if b.unlock, err = lock(c.Dir); err != nil {
			return nil, errors.Join(err, listener.Close())
		}
		options = append(options, kfake.DataDir(filepath.Join(c.Dir, "data")))
	}
	if b.cluster, err = kfake.NewCluster(options...); err != nil {
		return nil, errors.Join(fmt.Errorf("start the embedded broker on %q: %w", c.Dir, err), listener.Close(), b.unlock())
	}
	ctx, b.stop = context.WithCancel(ctx)
	go b.run(ctx, c.Compaction)
	return b, nil
}

// Addr is where clients connect, as host:port.
func (b *Broker) Addr() string { return b.addr }

// Close stops the broker and writes what a kill would leave out. It may be called more than once.
func (b *Broker) Close() error {
	b.stop()
	<-b.done
	return b.err
}

// run compacts on a timer and closes the cluster at the end. kfake's own timer does not run after a restart, until a topic is
// created or altered.
func (b *Broker) run(ctx context.Context, every time.Duration) {
	defer close(b.done)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			b.cluster.Compact()
		case <-ctx.Done():
			b.cluster.Close()
			b.err = b.unlock()
			return
		}
	}
}

// listen opens the guarded listener.
func listen(addr string) (net.Listener, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("address of the embedded broker %q: %w", addr, err)
	}
	if !tcp.IP.IsLoopback() {
		return nil, fmt.Errorf("the embedded broker asks nobody who they are and listens on loopback only: %q is not, use 127.0.0.1:%d", addr, tcp.Port)
	}
	l, err := net.ListenTCP("tcp", tcp)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("address %s of the embedded broker is taken: stop the program that listens there, or choose another address", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the embedded broker: %w", err)
	}
	return guard{l}, nil
}

// lock holds the folder until it is unlocked or the process ends, however it ends.
func lock(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder of the embedded broker: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder of the embedded broker: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path) // the number only helps to find it
		return nil, errors.Join(fmt.Errorf("data folder %q is in use by process %s: stop it, or choose another folder", dir, holder), f.Close())
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the data folder: %w", err), f.Close())
	}
	return f.Close, nil
}

func writePID(f *os.File) error {
	_, err := fmt.Fprint(f, os.Getpid())
	return err
}

// A logger hands kfake's lines to slog.
type logger struct{ log *slog.Logger }

// Logf is kfake's logger.
func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	at := slog.LevelDebug // kfake's info tells of every group's every step
	switch level {
	case kfake.LogLevelError:
		at = slog.LevelError
	case kfake.LogLevelWarn:
		at = slog.LevelWarn
	}
	if l.log.Enabled(context.Background(), at) {
		l.log.Log(context.Background(), at, "embedded broker", "said", fmt.Sprintf(format, args...))
	}
}
