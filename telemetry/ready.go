package telemetry

import (
	"errors"
	"sync"
)

// ErrDraining is every check's reason once the process has begun to leave.
var ErrDraining = errors.New("draining: the process is about to leave")

// Readiness collects the checks of one process. The zero value has none and is ready.
type Readiness struct {
	mu       sync.RWMutex
	names    []string
	checks   map[string]func() error
	draining bool
}

// Add names a check and how to ask it: nil means ready, else the error is the reason. Adding a name again replaces its check.
func (r *Readiness) Add(name string, check func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.checks == nil {
		r.checks = map[string]func() error{}
	}
	if _, known := r.checks[name]; !known {
		r.names = append(r.names, name)
	}
	r.checks[name] = check
}

// Drain makes every check fail for good, so that load balancers turn away before the process stops serving.
func (r *Readiness) Drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
}

// A CheckState is the answer of one check.
type CheckState struct {
	Check string
	Err   error // nil: ready
}

// States asks every check, in the order they were added.
func (r *Readiness) States() []CheckState {
	r.mu.RLock()
	defer r.mu.RUnlock()
	states := make([]CheckState, 0, len(r.names))
	for _, name := range r.names {
		err := ErrDraining
		if !r.draining {
			err = r.checks[name]()
		}
		states = append(states, CheckState{Check: name, Err: err})
	}
	return states
}
