package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tidemark/e2e/rig"
)

// A trickle is many clients that send a byte a second, and connect again when they are disconnected.
type trickle struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	cut    atomic.Int64 // connections that the server ended
	failed atomic.Int64 // connections that could not be made
	held   atomic.Int64 // how long the ended ones lasted at most, in ms
}

// startTrickle starts so many clients, which are slow with headers, body or large_body.
func startTrickle(ctx context.Context, address, how string, clients int) *trickle {
	ctx, cancel := context.WithCancel(ctx)
	t := &trickle{cancel: cancel}
	u, err := url.Parse(address)
	if err != nil {
		return t // an address that the bench chose itself
	}
	for range clients {
		t.done.Go(func() {
			for ctx.Err() == nil {
				begin := time.Now()
				t.one(ctx, u, how)
				// clients that connect at once again would be a flood
				_ = rig.Sleep(ctx, time.Until(begin.Add(time.Second)))
			}
		})
	}
	return t
}

func (t *trickle) one(ctx context.Context, u *url.URL, how string) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		t.failed.Add(1)
		return
	}
	defer func() { _ = conn.Close() }() // it is over
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	begin := time.Now()
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: bench\r\n", u.Path)
	if how != "headers" {
		head += "Content-Length: 400000\r\n\r\n{"
	}
	if how == "large_body" { // larger than the bodies that pass without the limiter for large ones
		head += strings.Repeat(" ", 20<<10)
	}
	if _, err := conn.Write([]byte(head)); err != nil {
		t.failed.Add(1)
		return
	}
	ended := make(chan struct{})
	go func() { // the server answers 408, or closes the connection
		defer close(ended)
		buffer := make([]byte, 512)
		for {
			if _, err := conn.Read(buffer); err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-ended:
			if ctx.Err() == nil {
				t.cut.Add(1)
				ms := time.Since(begin).Milliseconds()
				for old := t.held.Load(); ms > old && !t.held.CompareAndSwap(old, ms); old = t.held.Load() {
				}
			}
			return
		case <-time.After(time.Second):
			_, _ = conn.Write([]byte("x")) // an error shows as an end
		}
	}
}

// stop ends the clients and adds their figures.
func (t *trickle) stop(f result) {
	t.cancel()
	t.done.Wait()
	f["slow_clients_cut"], f["slow_clients_not_let_in"] = t.cut.Load(), t.failed.Load()
	f["longest_held_ms"] = t.held.Load()
}

// A memory is how much a process has resident while it is watched, in MB.
type memory struct {
	stop        context.CancelFunc
	done        chan struct{}
	most, first float64
}

// watch looks four times a second.
func watch(ctx context.Context, p *rig.Program) *memory {
	ctx, stop := context.WithCancel(ctx)
	m := &memory{stop: stop, done: make(chan struct{}), first: p.Usage().RSSMB}
	go func() {
		defer close(m.done)
		for ok := true; ok; ok = rig.Sleep(ctx, 250*time.Millisecond) == nil {
			m.most = max(m.most, p.Usage().RSSMB)
		}
	}()
	return m
}

// add ends the watch and adds its figures.
func (m *memory) add(f result) {
	m.stop()
	<-m.done
	f["rss_mb_before"], f["rss_mb_most"] = int(m.first), int(m.most)
}
