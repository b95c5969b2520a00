package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/kafka"
	"tidemark/topology"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// A brokersCheck talks to every address of --brokers, and keeps those that answered.
type brokersCheck struct {
	config kafka.Config
	good   []string
}

func (b *brokersCheck) run(ctx context.Context) []finding {
	found, good := probeAll(ctx, b.config, b.config.Brokers)
	b.good = good
	return found
}

// probeAll probes addresses beside each other.
func probeAll(ctx context.Context, config kafka.Config, addresses []string) (found []finding, good []string) {
	found = make([]finding, len(addresses))
	var all sync.WaitGroup
	for i, address := range addresses {
		all.Go(func() { found[i] = probeOne(ctx, config, address) })
	}
	all.Wait()
	for i, f := range found {
		if f.Status == fine {
			good = append(good, addresses[i])
		}
	}
	return found, good
}

func probeOne(ctx context.Context, config kafka.Config, address string) finding {
	contact, err := kafka.Probe(ctx, config, address)
	if fault, ok := errors.AsType[*kafka.Fault](err); ok {
		return finding{Status: failing, What: fault.Error(), Mend: fault.Fix}
	}
	if err != nil {
		return finding{Status: failing, What: address + ": " + err.Error(), Mend: "correct the settings"}
	}
	return finding{Status: fine, What: fmt.Sprintf("%s: answers in %v, %s, %s", address, contact.Took.Round(time.Millisecond),
		cmp.Or(contact.TLS, "without TLS"), cmp.Or(contact.Login, "without a login"))}
}

// A clusterDoctor asks a cluster that answers.
type clusterDoctor struct {
	config  kafka.Config
	streams topology.Streams
	single  topology.Streams // what will do when there is but one broker; the same as streams when the sizing was given
	since   time.Time
	watch   time.Duration
	roles   []string

	away []kafka.Broker // those that the cluster names and that cannot be talked to, once advertised has run
}

// failed turns an error of a question into a finding. A broker that cannot be talked to has been told of, and is in the way.
func (d *clusterDoctor) failed(err error) finding {
	if len(d.away) > 0 && kafka.Unreachable(err) {
		return finding{Status: skipped, What: fmt.Sprintf("not checked: %s cannot be talked to", brokerNames(d.away))}
	}
	f := finding{Status: failing, What: err.Error(), Mend: "look at the brokers above, and try again"}
	_, denied := errors.AsType[*kafka.Denied](err)
	switch text := f.What; {
	case errors.Is(err, kafka.ErrNoTopic):
		f.Mend = "run `tidemark topics apply`; if topics of another name are there, set --topic-prefix"
	case isCount(err):
		f.Mend = unequal
	case denied:
		f.Mend = "grant it: `tidemark topics acls` prints the commands"
	case strings.HasPrefix(text, "topic ") && strings.Contains(text, ", want "):
		f.Mend = "mend the setting with Kafka's own tools: tidemark never alters a topic"
	}
	return f
}

// What to do about a number of partitions. Which of the two it is shows when all topics are looked at.
const (
	unequal = "every topic must have the same number: partitions were added to some, and Kafka takes none away; " +
		"stop the roles and follow \"Changing the partition count\" in docs/operating.md (`tidemark topics repartition`)"
	otherCount = "every topic has this number: set --partitions to it; " +
		"to have another one, follow \"Changing the partition count\" in docs/operating.md"
)

func isCount(err error) bool {
	m, ok := errors.AsType[*kafka.Mismatch](err)
	return ok && m.IsPartitionCount()
}

// alike reports whether the errors say of each of n topics that it has one and the same other number of partitions.
func alike(errs []error, n int) bool {
	counts, found := 0, map[string]bool{}
	for _, err := range errs {
		if m, ok := errors.AsType[*kafka.Mismatch](err); ok && m.IsPartitionCount() {
			counts++
			found[m.Found] = true
		}
	}
	return counts == n && len(found) == 1
}

// patiently asks again while a coordinator is being chosen: on a new cluster the first question begins that.
func patiently(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if !errors.Is(err, kerr.CoordinatorNotAvailable) && !errors.Is(err, kerr.NotCoordinator) && !errors.Is(err, kerr.CoordinatorLoadInProgress) {
			return err
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// advertised talks to the brokers that the cluster names: clients connect to those, whatever --brokers says.
func (d *clusterDoctor) advertised(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	state, err := kafka.Describe(ctx, d.config, nil)
	if err != nil {
		return []finding{d.failed(err)}
	}
	var others []string
	for _, b := range state.Brokers {
		if !slices.Contains(d.config.Brokers, b.Address) {
			others = append(others, b.Address)
		}
	}
	found, good := probeAll(ctx, d.config, others)
	var bad []finding
	for i, f := range found {
		if f.Status == failing {
			b := state.Brokers[slices.IndexFunc(state.Brokers, func(b kafka.Broker) bool { return b.Address == others[i] })]
			d.away = append(d.away, b)
			f.What = fmt.Sprintf("the cluster names broker %d, which cannot be talked to from here: %s", b.ID, f.What)
			f.Mend += "; if the address is right inside the cluster only, correct its advertised.listeners"
			bad = append(bad, f)
		}
	}
	if len(bad) > 0 {
		return bad
	}
	return []finding{{Status: fine, What: fmt.Sprintf("each broker of the cluster can be talked to: %d, of which %d at other addresses than --brokers", len(state.Brokers), len(good))}}
}

// separate returns the errors that were joined.
func separate(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// acls asks what this user may do. Who is named with --role must be able to; of the others it is only told.
func (d *clusterDoctor) acls(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	roles := []string{ingestRole, processRole, serveRole}
	if len(d.roles) > 0 {
		roles = d.roles
	}
	found := make([]finding, len(roles))
	var all sync.WaitGroup
	for i, role := range roles {
		all.Go(func() {
			_, access := needsOf(role, d.streams)
			found[i] = d.may(ctx, role, access)
		})
	}
	all.Wait()
	return found
}

func (d *clusterDoctor) may(ctx context.Context, role string, access []kafka.Access) finding {
	err := patiently(ctx, func() error { return kafka.CheckAccess(ctx, d.config, access) })
	if err == nil {
		return finding{Status: fine, What: "this user may do all that " + role + " does"}
	}
	var lacks []string
	for _, each := range separate(err) {
		lacks = append(lacks, each.Error())
	}
	_, denied := errors.AsType[*kafka.Denied](err)
	status, mend := warning, "no fault if another user runs this role (say which with --role); else grant it: `tidemark topics acls` prints the commands"
	switch {
	case !denied: // the question was not answered
		return d.failed(fmt.Errorf("ask what %s may do: %w", role, err))
	case len(d.roles) > 0:
		status, mend = failing, "grant it: `tidemark topics acls` prints the commands"
	}
	return finding{Status: status, What: role + " would be refused: " + some(lacks), Mend: mend, Detail: lacks}
}
