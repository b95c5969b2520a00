package telemetry

import (
	"errors"
	"sync"
)

// errDraining is every check's reason once the process drains.
var errDraining = errors.New("draining: the process is shutting down")

// Readiness collects the checks of one process. The zero value has none and is ready.
type Readiness struct {
	mu       sync.RWMutex
	names    []string
	checks   map[string]func() error
	draining bool
}

// Add adds a check: nil means ready, else the error is the reason. Adding a name again replaces its check.
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

// Drain makes every check fail from now on, so that load balancers send requests elsewhere before the process stops.
func (r *Readiness) Drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
}

// A CheckState is the result of one check.
type CheckState struct {
	Check string
	Err   error // nil: ready
}

// States runs every check, in the order they were added.
func (r *Readiness) States() []CheckState {
	r.mu.RLock()
	defer r.mu.RUnlock()
	states := make([]CheckState, 0, len(r.names))
	for _, name := range r.names {
		err := errDraining
		if !r.draining {
			err = r.checks[name]()
		}
		states = append(states, CheckState{Check: name, Err: err})
	}
	return states
}
