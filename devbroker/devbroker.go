// Package devbroker runs a Kafka broker inside this process, for `tidemark dev` and for tests.
//
// Any Kafka client can connect. Acknowledged records and committed offsets survive a restart and kill -9, and a lock
// keeps two processes from sharing a directory. It does not fsync, so records acknowledged just before a power loss may
// be lost. It has one broker, no replication and no authentication, so it listens on loopback only. It does not create
// topics automatically.
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

// Config configures a broker. The zero value is one in memory on a free port.
type Config struct {
	Dir        string        // of the data; empty: in memory
	Addr       string        // host:port on loopback; empty: 127.0.0.1 and a free port
	Compaction time.Duration // how often compacted topics are compacted; zero: every 5 minutes
	Log        *slog.Logger  // nil: no log
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
		return nil, errors.Join(fmt.Errorf("start the embedded broker on %q: %w", c.Dir, err), listener.Close(),
			b.unlock())
	}
	ctx, b.stop = context.WithCancel(ctx)
	go b.run(ctx, c.Compaction)
	return b, nil
}

// Addr returns the address for clients, as host:port.
func (b *Broker) Addr() string { return b.addr }

// Close flushes and stops the broker. It may be called more than once.
func (b *Broker) Close() error {
	b.stop()
	<-b.done
	return b.err
}

// run compacts on a timer until ctx ends. kfake's own timer does not run after a restart until a topic is created or
// altered.
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
		return nil, fmt.Errorf(
			"the embedded broker has no authentication and listens on loopback only: "+
				"instead of %q use 127.0.0.1:%d", addr, tcp.Port)
	}
	l, err := net.ListenTCP("tcp", tcp)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("address %s of the embedded broker is in use: stop the program that listens there, or "+
			"choose another address", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the embedded broker: %w", err)
	}
	return guard{l}, nil
}

// lock locks the directory until unlock or the end of the process, also by kill -9.
func lock(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory of the embedded broker: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory of the embedded broker: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path) // only to name it in the error
		return nil, errors.Join(
			fmt.Errorf("data directory %q is in use by process %s: stop it, or choose another directory", dir,
				holder), f.Close())
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the data directory: %w", err), f.Close())
	}
	return f.Close, nil
}

func writePID(f *os.File) error {
	_, err := fmt.Fprint(f, os.Getpid())
	return err
}

// A logger writes kfake's log to slog.
type logger struct{ log *slog.Logger }

// Logf implements kfake.Logger.
func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	at := slog.LevelDebug // kfake logs every step of every group as info
	switch level {
	case kfake.LogLevelError:
		at = slog.LevelError
	case kfake.LogLevelWarn:
		at = slog.LevelWarn
	}
	if l.log.Enabled(context.Background(), at) {
		l.log.Log(context.Background(), at, "embedded broker", "message", fmt.Sprintf(format, args...))
	}
}
