package telemetry

import (
	"errors"
	"sync"
)

// ErrDraining is every role's reason once the process has begun to leave.
var ErrDraining = errors.New("draining: the process is about to leave")

// Readiness collects the answers of the roles of one process. The zero value has no role and is ready.
type Readiness struct {
	mu       sync.RWMutex
	names    []string
	checks   map[string]func() error
	draining bool
}

// Add names a role and how to ask it: nil means ready, else the error is the reason. Adding a name again replaces its check.
func (r *Readiness) Add(role string, check func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.checks == nil {
		r.checks = map[string]func() error{}
	}
	if _, known := r.checks[role]; !known {
		r.names = append(r.names, role)
	}
	r.checks[role] = check
}

// Drain makes every role not ready for good, so that load balancers turn away before the process stops serving.
func (r *Readiness) Drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
}

// A RoleState is the answer of one role.
type RoleState struct {
	Role string
	Err  error // nil: ready
}

// States asks every role, in the order they were added.
func (r *Readiness) States() []RoleState {
	r.mu.RLock()
	defer r.mu.RUnlock()
	states := make([]RoleState, 0, len(r.names))
	for _, name := range r.names {
		err := ErrDraining
		if !r.draining {
			err = r.checks[name]()
		}
		states = append(states, RoleState{Role: name, Err: err})
	}
	return states
}
