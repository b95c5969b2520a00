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
		return finding{Status: failing, What: fault.Error(), Mend: fault.Mend}
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
	since   time.Time
	watch   time.Duration
	roles   []string
}

// failed turns an error of a question into a finding.
func failed(err error) finding {
	f := finding{Status: failing, What: err.Error(), Mend: "look at the brokers above, and try again"}
	switch text := f.What; {
	case strings.Contains(text, "does not exist"):
		f.Mend = "run `tidemark topics apply`; if topics of another name are there, set --topic-prefix"
	case strings.Contains(text, ": partitions is"):
		f.Mend = "set --partitions to what is found; it cannot be changed afterwards, as keys would move"
	case strings.Contains(text, "grant the ACL"):
		f.Mend = "grant it: `tidemark topics acls` prints the commands"
	case strings.HasPrefix(text, "topic ") && strings.Contains(text, ", want "):
		f.Mend = "mend the setting with Kafka's own tools: tidemark never alters a topic"
	}
	return f
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
		return []finding{failed(err)}
	}
	var others []string
	for _, b := range state.Brokers {
		if !slices.Contains(d.config.Brokers, b.Address) {
			others = append(others, b.Address)
		}
	}
	found, good := probeAll(ctx, d.config, others)
	var bad []finding
	for _, f := range found {
		if f.Status == failing {
			f.What = "the cluster names a broker that cannot be talked to from here: " + f.What
			f.Mend += "; if the address is right inside the cluster only, correct its advertised.listeners"
			bad = append(bad, f)
		}
	}
	if len(bad) > 0 {
		return bad
	}
	return []finding{{Status: fine, What: fmt.Sprintf("each broker of the cluster can be talked to: %d, of which %d at other addresses than --brokers", len(state.Brokers), len(good))}}
}

// topics compares the topics with what tidemark needs.
func (d *clusterDoctor) topics(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	want := d.streams.Topics()
	err := kafka.CheckTopics(ctx, d.config, want)
	if err == nil {
		return []finding{{Status: fine, What: fmt.Sprintf("all %d are there as they must be, with %d partitions each", len(want), want[0].Partitions)}}
	}
	var found []finding
	for _, each := range separate(err) {
		found = append(found, failed(each))
	}
	return found
}

// separate returns the errors that were joined.
func separate(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// replicas looks for partitions that have lost some.
func (d *clusterDoctor) replicas(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	state, err := kafka.Describe(ctx, d.config, d.streams.Topics())
	if err != nil {
		return []finding{failed(err)}
	}
	if state.Partitions == 0 {
		return []finding{{Status: skipped, What: "not checked: there is no topic"}}
	}
	var offline, refusing, weak []string
	for _, w := range state.Weak {
		switch {
		case w.Offline:
			offline = append(offline, w.String())
		case w.Refusing:
			refusing = append(refusing, w.String())
		default:
			weak = append(weak, w.String())
		}
	}
	var found []finding
	tell := func(status string, of []string, what, mend string) {
		if len(of) > 0 {
			found = append(found, finding{Status: status, What: fmt.Sprintf("%d of %d partitions %s: %s", len(of), state.Partitions, what, some(of)), Mend: mend, Detail: of})
		}
	}
	tell(failing, offline, "are offline", "start the brokers that hold them; what they hold is neither read nor written until then")
	tell(failing, refusing, "refuse writes", "start the brokers that hold their replicas: fewer are in sync than min.insync.replicas; webhooks to them are answered 503")
	tell(warning, weak, "are under-replicated", "start the broker that is away, or wait until it has caught up")
	if len(found) == 0 {
		return []finding{{Status: fine, What: fmt.Sprintf("all %d partitions have a leader and all their replicas", state.Partitions)}}
	}
	return found
}

// some joins the first few.
func some(list []string) string {
	const few = 5
	if len(list) > few {
		return strings.Join(list[:few], ", ") + fmt.Sprintf(" and %d more", len(list)-few)
	}
	return strings.Join(list, ", ")
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
	status, mend := warning, "no fault if another user runs this role (say which with --role); else grant it: `tidemark topics acls` prints the commands"
	switch {
	case !strings.Contains(err.Error(), "grant the ACL"): // the question was not answered
		return failed(fmt.Errorf("ask what %s may do: %w", role, err))
	case len(d.roles) > 0:
		status, mend = failing, "grant it: `tidemark topics acls` prints the commands"
	}
	return finding{Status: status, What: role + " would be refused: " + some(lacks), Mend: mend, Detail: lacks}
}
