package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"tidemark/e2e/proxy"
	"tidemark/e2e/rig"
)

// restart starts a killed processor and waits until it folds again.
func (r *run) restart(ctx context.Context, p *rig.Program) (time.Duration, error) {
	if err := p.Start(); err != nil {
		return 0, err
	}
	return p.AwaitReady(ctx, 120*time.Second)
}

// killProcessor kills one at a random moment, or all of them.
func killProcessor(ctx context.Context, r *run) (figures, error) {
	victims := r.process[:1+r.rnd.IntN(2)]
	if r.rnd.IntN(2) == 0 {
		victims = r.process[len(r.process)-1:]
	}
	for _, p := range victims {
		if err := p.Kill(); err != nil {
			return nil, err
		}
	}
	var worst time.Duration
	for _, p := range victims {
		if err := p.Start(); err != nil {
			return nil, err
		}
	}
	begin := time.Now()
	for _, p := range victims {
		if _, err := p.AwaitReady(ctx, 120*time.Second); err != nil {
			return nil, err
		}
		worst = time.Since(begin)
	}
	return figures{"recovery s": round(worst), "killed": float64(len(victims))}, nil
}

// pauseProcessor sends a processor SIGSTOP, for longer than its session or not, and SIGCONT.
func pauseProcessor(past bool) func(context.Context, *run) (figures, error) {
	return func(ctx context.Context, r *run) (figures, error) {
		p := pick(r.rnd, r.process)
		d := r.between(2*time.Second, 7*time.Second)
		if past {
			d = r.between(12*time.Second, 20*time.Second) // the session is 10 s
		}
		var held *gap
		if past && r.rnd.IntN(2) == 0 { // half of them are stopped in the middle of an epoch
			inMiddle := []gap{rowsNotSent, outputsNotSent}
			if r.transactional() {
				inMiddle[1] = emptyNotAcked
			}
			g := pick(r.rnd, inMiddle)
			held = &g
		}
		took, err := pauseAndResume(ctx, r, p, d, held, 300*time.Millisecond)
		out := figures{"paused s": round(d), "recovery s": round(took)}
		if held != nil {
			out["in the middle: "+held.name] = 1
		}
		return out, err
	}
}

// pauseAndResume stops a processor for d and returns how long it took to be ready again. If a gap is given, that has
// been held open for some time when the processor stops: requests are in flight then, and more records wait in its
// memory.
func pauseAndResume(ctx context.Context, r *run, p *rig.Program, d time.Duration, held *gap,
	open time.Duration,
) (time.Duration, error) {
	release := func() {}
	if held != nil {
		f := held.hold(r.installation)
		release = r.proxy.Inject(f)
		defer release()
		if err := errors.Join(awaitHeld(ctx, f, p), rig.Sleep(ctx, open)); err != nil {
			return 0, err
		}
	}
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return 0, err
	}
	release()
	err := rig.Sleep(ctx, d)
	if err = errors.Join(err, p.Signal(syscall.SIGCONT)); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := rig.Sleep(ctx, time.Second); err != nil { // readiness may be that of before the pause
		return 0, err
	}
	_, err = p.AwaitReady(ctx, 120*time.Second)
	return time.Since(begin), err
}

// killIngress kills an instance, most times while acknowledgements of its events are held.
func killIngress(ctx context.Context, r *run) (figures, error) {
	p := pick(r.rnd, r.ingress)
	var held int64
	if r.rnd.IntN(4) > 0 {
		f := &proxy.Fault{Effect: proxy.HoldAnswers, Match: r.toEvents}
		lift := r.proxy.Inject(f)
		defer lift()
		if err := errors.Join(awaitHeld(ctx, f, p), rig.Sleep(ctx, r.upTo(300*time.Millisecond))); err != nil {
			return nil, err
		}
		held = f.Hits.Load()
	}
	if err := p.Kill(); err != nil {
		return nil, err
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	took, err := p.AwaitReady(ctx, 60*time.Second)
	return figures{"recovery s": round(took), "acks held": float64(held)}, err
}

// storm adds and removes members several times, so that the group has two to four.
func storm(ctx context.Context, r *run) (figures, error) {
	stall := r.longestStall(ctx, r.topics.Notify)
	rounds := 3
	if r.quick {
		rounds = 1
	}
	for range rounds {
		var extra []*rig.Program
		for i := range 2 {
			var args []string // without an instance id it leaves the group at once
			if r.transactional() {
				args = []string{"--instance-id", instance(2 + i)}
			}
			p := r.newProcess(fmt.Sprint(3+i), args...)
			if err := p.Start(); err != nil {
				return nil, err
			}
			extra = append(extra, p)
		}
		var errs []error
		errs = append(errs, rig.Sleep(ctx, r.between(5*time.Second, 10*time.Second)))
		for i, p := range extra { // one leaves, one dies
			if i == 0 {
				_, err := p.Term(drainLimit)
				errs = append(errs, err)
			} else {
				errs = append(errs, p.Kill())
			}
			errs = append(errs, os.RemoveAll(p.Data))
		}
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		if err := rig.Sleep(ctx, r.between(3*time.Second, 8*time.Second)); err != nil {
			return nil, err
		}
	}
	return figures{"longest s without a notice": round(stall())}, nil
}

// rolling restarts every role in turn with SIGTERM. Each stays in rotation until a load balancer would have noticed.
func rolling(ctx context.Context, r *run) (figures, error) {
	var slowest time.Duration
	requests, refused, broken, why := 0, 0, 0, ""
	// Below the machine's limit: at it brokers are too slow now and then, without any restart.
	r.traffic.trickle.Store(rate.NewLimiter(200, 20))
	defer r.traffic.trickle.Store(nil)
	roles := r.all()
	if r.quick { // one of each: a restart takes 20 s on a busy machine
		roles = []*rig.Program{r.ingress[0], r.process[0], r.serve}
	}
	for _, p := range roles {
		w, end := r.traffic.watch()
		// A load balancer notices somewhat later, within drainDelay.
		noticed := time.AfterFunc(r.upTo(drainDelay/2), func() { r.traffic.out.Store(p, true) })
		took, err := p.Term(drainLimit)
		noticed.Stop()
		if err != nil {
			end()
			return nil, fmt.Errorf("%s after SIGTERM: %w\n%s", p.Name, err, p.Tail())
		}
		slowest = max(slowest, took)
		_, err = r.restart(ctx, p)
		r.traffic.out.Delete(p)
		end()
		if err != nil {
			return nil, err
		}
		if !slices.Contains(r.ingress, p) { // no other role answers webhooks: 5xx are then due to the brokers
			continue
		}
		// Where another instance refuses too, brokers or the whole machine stall, and senders notice later than a
		// balancer would.
		if others := w.refused - w.by[p.URL]; others > 0 ||
			w.broken == 0 && w.by[p.URL] == w.unacked[p.URL] && w.refused > 0 {
			return nil, fmt.Errorf("%w: %d events were not acknowledged in time, %d refused by another instance and "+
				"%d connections cut, which may be due to the brokers", errMissed, w.unacked[p.URL], others, w.broken)
		}
		requests, refused, broken, why = requests+len(w.ok), refused+w.refused, broken+w.broken, fmt.Sprint(why, w.why)
	}
	if refused+broken > 0 {
		return nil, fmt.Errorf("restarts of the ingress cost %d 5xx and %d connections %s", refused, broken, why)
	}
	return figures{"slowest drain s": round(slowest), "5xx": float64(refused), "requests": float64(requests)}, nil
}

// killServe kills the view, which resumes from its local store.
func killServe(ctx context.Context, r *run) (figures, error) {
	if err := errors.Join(r.serve.Kill(), r.serve.Start()); err != nil {
		return nil, err
	}
	took, err := r.serve.AwaitReady(ctx, 180*time.Second)
	return figures{"recovery s": round(took)}, err
}

// breakStore ends a processor, changes its store, and starts it again. If the store must have files, the processor
// drains first: a store writes them when it is closed, or is large.
func breakStore(how func(dir string) error, there bool) func(context.Context, *run) (figures, error) {
	return func(ctx context.Context, r *run) (figures, error) {
		p := pick(r.rnd, r.process)
		end := p.Kill
		if there {
			end = func() error { _, err := p.Term(drainLimit); return err }
		}
		if err := end(); err != nil {
			return nil, err
		}
		broken := how(p.Data)
		if broken != nil && !errors.Is(broken, errMissed) {
			return nil, broken
		}
		took, err := r.restart(ctx, p)
		if err == nil {
			err = broken
		}
		return figures{"rebuilt s": round(took)}, err
	}
}

// tables calls do for each of a store's files with rows. A store without any is missed.
func tables(dir string, do func(path string, size int64) error) error {
	found := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".sst" {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() == 0 {
			return err
		}
		found++
		return do(path, info.Size())
	})
	if err == nil && found == 0 {
		return errMissed
	}
	return err
}

func flipBits(dir string) error {
	return tables(dir, func(path string, size int64) (err error) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		for at := int64(0); at < size; at += max(size/16, 1) {
			var b [1]byte
			_, _ = f.ReadAt(b[:], at) // within the file
			if _, err := f.WriteAt([]byte{b[0] ^ 0x10}, at); err != nil {
				return err
			}
		}
		return nil
	})
}

func truncate(dir string) error {
	return tables(dir, func(path string, size int64) error { return os.Truncate(path, size/2) })
}

// fillDisk starts a processor on a full disk, and frees space later.
func fillDisk(ctx context.Context, r *run) (figures, error) {
	if r.tmpfs == "" {
		return figures{"not run: no tmpfs here": 1}, nil
	}
	p := r.process[0]
	if err := p.Kill(); err != nil {
		return nil, err
	}
	filler, err := os.Create(filepath.Join(r.tmpfs, "filler"))
	if err != nil {
		return nil, err
	}
	defer filler.Close() //nolint:errcheck // closed twice without an error
	block := make([]byte, 1<<16)
	_, _ = rand.Read(block) // never fails: see crypto/rand
	for err == nil {
		_, err = filler.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return nil, err
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	if err := rig.Sleep(ctx, r.between(6*time.Second, 10*time.Second)); err != nil {
		return nil, err
	}
	died := 0.0
	if !p.Alive() {
		died = 1
	}
	if err := os.Remove(filler.Name()); err != nil {
		return nil, err
	}
	_ = filler.Close() // its space is free once it is removed and closed
	begin := time.Now()
	if died == 1 { // as its supervisor would
		if err := p.Start(); err != nil {
			return nil, err
		}
	}
	_, err = p.AwaitReady(ctx, 120*time.Second)
	return figures{"recovery s": round(time.Since(begin)), "ended by itself": died}, err
}
