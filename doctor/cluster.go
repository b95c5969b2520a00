package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tidemark/kafka"
	"tidemark/topology"
)

// A cluster makes the checks that need a broker. Its Kafka.Brokers are those of --brokers that answered.
type cluster struct {
	Config
	unreachable []kafka.Broker // of those that the cluster advertises; set by advertised
}

// reachable returns the check, or its replacement when no broker answers.
func (d *cluster) reachable(c check) check {
	if len(d.Kafka.Brokers) == 0 {
		c.run = func(context.Context) []Finding { return one(Skipped, "not checked: no broker can be reached", "") }
	}
	return c
}

// probeAll probes addresses concurrently, and returns those that answered.
func probeAll(ctx context.Context, config kafka.Config, addresses []string) (found []Finding, good []string) {
	found = make([]Finding, len(addresses))
	var all sync.WaitGroup
	for i, address := range addresses {
		all.Go(func() { found[i] = probe(ctx, config, address) })
	}
	all.Wait()
	for i, f := range found {
		if f.Status == OK {
			good = append(good, addresses[i])
		}
	}
	return found, good
}

func probe(ctx context.Context, config kafka.Config, address string) Finding {
	contact, err := kafka.Probe(ctx, config, address)
	if fault, ok := errors.AsType[*kafka.Fault](err); ok {
		return Finding{Status: Failure, What: fault.Error(), Fix: fault.Fix}
	}
	if err != nil {
		return Finding{Status: Failure, What: address + ": " + err.Error(), Fix: "correct the settings"}
	}
	return Finding{Status: OK, What: fmt.Sprintf("%s: answers in %v, %s, %s", address,
		contact.Took.Round(time.Millisecond), cmp.Or(contact.TLS, "without TLS"), cmp.Or(contact.Login,
			"without a login"))}
}

const grantACLs = "grant it: `tidemark topics acls` prints the commands"

// failed turns the error of a request into a finding. Unreachable brokers are reported by advertised already.
func (d *cluster) failed(err error) Finding {
	if len(d.unreachable) > 0 && kafka.Unreachable(err) {
		return Finding{Status: Skipped, What: fmt.Sprintf("not checked: %s cannot be reached",
			brokerNames(d.unreachable))}
	}
	f := Finding{Status: Failure, What: err.Error(), Fix: "fix what the check of the brokers reports, and try again"}
	mismatch, differs := errors.AsType[*kafka.Mismatch](err)
	_, denied := errors.AsType[*kafka.Denied](err)
	switch {
	case errors.Is(err, kafka.ErrNoTopic):
		f.Fix = "run `tidemark topics apply`; if the topics have another prefix, set --topic-prefix"
	case differs && mismatch.IsPartitionCount():
		f.Fix = unequalCounts
	case differs:
		f.Fix = "correct the setting with Kafka's own tools: tidemark never alters a topic"
	case denied:
		f.Fix = grantACLs
	}
	return f
}

// advertised probes the brokers that the cluster advertises: clients connect to those, whatever --brokers says.
func (d *cluster) advertised(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	state, err := kafka.Describe(ctx, d.Kafka, nil)
	if err != nil {
		return []Finding{d.failed(err)}
	}
	var others []string
	for _, b := range state.Brokers {
		if !slices.Contains(d.Kafka.Brokers, b.Address) {
			others = append(others, b.Address)
		}
	}
	found, good := probeAll(ctx, d.Kafka, others)
	var bad []Finding
	for i, f := range found {
		if f.Status == Failure {
			b := state.Brokers[slices.IndexFunc(state.Brokers,
				func(b kafka.Broker) bool { return b.Address == others[i] })]
			d.unreachable = append(d.unreachable, b)
			f.What = fmt.Sprintf("the cluster advertises broker %d, which cannot be reached from here: %s", b.ID,
				f.What)
			f.Fix += "; if the address is right inside the cluster only, correct its advertised.listeners"
			bad = append(bad, f)
		}
	}
	if len(bad) > 0 {
		return bad
	}
	return one(OK, fmt.Sprintf("every broker of the cluster can be reached: %d, of which %d at other addresses "+
		"than --brokers",
		len(state.Brokers), len(good)), "")
}

// CheckRole is the check that a role makes before it starts: its topics exist as they must be, and ACLs allow what it
// does.
func CheckRole(ctx context.Context, c kafka.Config, role topology.Role) error {
	if err := kafka.CheckTopics(ctx, c, role.Uses()); err != nil {
		return err
	}
	return checkACLs(ctx, c, role)
}

// checkACLs asks the brokers what this user may do. They do not say it of transactional ids: without that ACL, which
// only exactly_once needs, the first transaction fails.
func checkACLs(ctx context.Context, c kafka.Config, role topology.Role) error {
	var access []kafka.Access
	for _, acl := range role.ACLs() {
		switch acl.Resource {
		case topology.TopicResource:
			access = append(access, kafka.Access{Topic: acl.Name, Operations: acl.Operations})
		case topology.GroupResource:
			access = append(access, kafka.Access{Group: acl.Name, Operations: acl.Operations})
		}
	}
	return kafka.CheckAccess(ctx, c, access)
}

// acls checks what this user may do. Only a role named as this user's fails.
func (d *cluster) acls(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	roles := slices.DeleteFunc(slices.Clone(d.Roles), func(r topology.Role) bool {
		if len(d.User) > 0 {
			return !slices.Contains(d.User, r.Name)
		}
		return r.Command == ""
	})
	found := make([]Finding, len(roles))
	var all sync.WaitGroup
	for i, role := range roles {
		all.Go(func() { found[i] = d.roleACLs(ctx, role) })
	}
	all.Wait()
	return found
}

func (d *cluster) roleACLs(ctx context.Context, role topology.Role) Finding {
	err := kafka.RetryCoordinator(ctx, func() error { return checkACLs(ctx, d.Kafka, role) })
	if err == nil {
		return Finding{Status: OK, What: "this user may do all that " + role.Name + " does"}
	}
	if _, denied := errors.AsType[*kafka.Denied](err); !denied {
		return d.failed(fmt.Errorf("ask what %s may do: %w", role.Name, err))
	}
	var missing []string
	for _, each := range separate(err) {
		missing = append(missing, each.Error())
	}
	what := role.Name + " would be refused: " + firstFew(missing)
	f := Finding{Status: Failure, What: what, Fix: grantACLs, Detail: missing}
	if len(d.User) == 0 {
		f.Status = Warning
		f.Fix = "nothing, if another user runs this role (say which with --role); else " + grantACLs
	}
	return f
}

// separate returns the errors that were joined.
func separate(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// brokerNames lists brokers with their addresses as far as they are known. An empty list is a broker that does not
// exist yet.
func brokerNames(brokers []kafka.Broker) string {
	if len(brokers) == 0 {
		return "another broker"
	}
	names := make([]string, len(brokers))
	for i, b := range brokers {
		if names[i] = "broker " + strconv.Itoa(int(b.ID)); b.Address != "" {
			names[i] += " (" + b.Address + ")"
		}
	}
	return strings.Join(names, " and ")
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// firstFew joins the first five.
func firstFew(list []string) string {
	const few = 5
	if len(list) > few {
		return strings.Join(list[:few], ", ") + fmt.Sprintf(" and %d more", len(list)-few)
	}
	return strings.Join(list, ", ")
}
