package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tidemark/e2e/oracle"
	"tidemark/kafka/epochs"

	"github.com/twmb/franz-go/pkg/kadm"
)

const (
	partitions = 8
	drainDelay = 2 * time.Second // of ingress instances
	secret     = "fault-secret-of-thirty-two-bytes-or-more"
)

// A rig is one installation on a cluster: its topics, its ACLs and its processes.
type rig struct {
	*cluster
	dir, prefix, binary string
	guarantee           epochs.Guarantee
	topics              oracle.Topics

	ingress, process []*program
	serve            *program
	dlqACL           *kadm.ACLBuilder // what lets the processors write dead letters
	tmpfs            string           // mounted for a processor's store, when this machine lets us
}

// newRig makes topics and ACLs, and starts nothing.
func newRig(ctx context.Context, c *cluster, dir, prefix, binary string, guarantee epochs.Guarantee) (*rig, error) {
	g := &rig{cluster: c, dir: filepath.Join(dir, prefix), prefix: prefix, binary: binary, guarantee: guarantee}
	g.topics = oracle.Topics{
		Events: prefix + "-events", Files: prefix + "-files-table", Index: prefix + "-index", Notify: prefix + "-notify",
		DLQ: prefix + "-dlq", Workspaces: prefix + "-workspaces-table",
	}
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, binary, append([]string{"topics", "apply", "--brokers", strings.Join(c.plain, ",")}, g.sizing()...)...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("topics apply: %w\n%s", err, out)
	}
	if err := g.grant(ctx); err != nil {
		return nil, err
	}
	if err := g.compactSoon(ctx); err != nil {
		return nil, err
	}
	for i := range 2 {
		g.ingress = append(g.ingress, g.newIngress(i))
		g.process = append(g.process, g.newProcess(fmt.Sprint(i+1), "--instance-id", instance(i)))
	}
	g.tmpfs = mount(g.process[0].data)
	api := freeAddr()
	g.serve = g.role("serve", "serve", "--data", filepath.Join(g.dir, "data-serve"), "--api-addr", api)
	g.serve.url = "http://" + api
	return g, nil
}

// mount gives a folder a small disk of its own, and returns "" where that is not allowed.
func mount(dir string) string {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return ""
	}
	if err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1500m", "tmpfs", dir).Run(); err != nil {
		return ""
	}
	return dir
}

func (g *rig) sizing() []string {
	return []string{"--topic-prefix", g.prefix, "--partitions", strconv.Itoa(partitions)}
}

// security is how a role reaches the brokers: through the proxy, with TLS and its SCRAM user.
func (g *rig) security(role string) (flags, env []string) {
	return []string{
		"--brokers", strings.Join(g.proxies, ","), "--kafka-tls", "--kafka-ca-file", filepath.Join(g.certs, "ca.pem"),
		"--kafka-sasl-mechanism", "SCRAM-SHA-512", "--kafka-sasl-user", "tidemark-" + role,
	}, []string{"TIDEMARK_KAFKA_SASL_PASSWORD=tidemark-" + role + "-secret", "TIDEMARK_WEBHOOK_SECRETS=" + secret}
}

// certificate is another way: straight to the brokers, with a certificate for the user's name.
func (g *rig) certificate(user string) []string {
	file := func(name string) string { return filepath.Join(g.certs, name) }
	return []string{
		"--brokers", strings.Join(g.ssl, ","), "--kafka-tls", "--kafka-ca-file", file("ca.pem"),
		"--kafka-cert-file", file(user + ".pem"), "--kafka-key-file", file(user + ".key"),
	}
}

func (g *rig) role(command, name string, args ...string) *program {
	flags, env := g.security(command)
	if command == "serve" {
		flags, env = g.certificate("tidemark-serve"), nil
	}
	p := &program{name: name, path: g.binary, env: env, log: filepath.Join(g.dir, name+".log"), admin: freeAddr()}
	p.args = append(append(append([]string{command}, g.sizing()...), flags...), append(args, "--admin-addr", p.admin)...)
	return p
}

func (g *rig) newIngress(i int) *program {
	addr := freeAddr()
	p := g.role("ingest", fmt.Sprint("ingress", i+1), "--ingress-addr", addr, "--drain-delay", drainDelay.String())
	p.url = "http://" + addr
	return p
}

// instance names the i-th of the processors that are always there.
func instance(i int) string { return fmt.Sprint("p", i+1) }

// transactional says what the processors do.
func (g *rig) transactional() bool { return g.guarantee == epochs.ExactlyOnce }

func (g *rig) newProcess(name string, args ...string) *program {
	data := filepath.Join(g.dir, "data-process"+name)
	if g.transactional() {
		args = append(args, "--guarantee", string(epochs.ExactlyOnce), "--epoch", "50ms")
	}
	p := g.role("process", "process"+name, append(args, "--data", data)...)
	p.data = data
	return p
}

func (g *rig) all() []*program {
	all := append(append([]*program{}, g.ingress...), g.process...)
	if g.serve != nil {
		all = append(all, g.serve)
	}
	return all
}

// grant allows each role what `tidemark topics acls` says, and no more.
func (g *rig) grant(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, g.binary, "topics", "acls", "--topic-prefix", g.prefix, "-o", "json").Output()
	if err != nil {
		return fmt.Errorf("topics acls: %w", err)
	}
	var acls []struct {
		Role, Principal, Resource, Name, Pattern string
		Operations                               []string
	}
	if err := json.Unmarshal(out, &acls); err != nil {
		return err
	}
	for _, a := range acls {
		b := kadm.NewACLs().Allow(a.Principal).AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
		switch a.Resource {
		case "group":
			b.Groups(a.Name)
		case "transactional-id":
			b.TransactionalIDs(a.Name)
		default:
			b.Topics(a.Name)
		}
		if a.Pattern == "prefixed" {
			b.ResourcePatternType(kadm.ACLPatternPrefixed)
		}
		operations := map[string]kadm.ACLOperation{
			"Read": kadm.OpRead, "Write": kadm.OpWrite, "Describe": kadm.OpDescribe, "DescribeConfigs": kadm.OpDescribeConfigs, "Create": kadm.OpCreate,
		}
		var ops []kadm.ACLOperation
		for _, name := range a.Operations {
			op, known := operations[name]
			if !known {
				return fmt.Errorf("the operation %q of an ACL is not known here", name)
			}
			ops = append(ops, op)
		}
		results, err := g.admin.CreateACLs(ctx, b.Operations(ops...))
		if err != nil {
			return err
		}
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
		if err != nil {
			return fmt.Errorf("create ACLs: %w", err)
		}
	}
	g.dlqACL = kadm.NewACLs().Allow("User:tidemark-process").AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral).
		Topics(g.topics.DLQ).Operations(kadm.OpWrite)
	return nil
}

// compactSoon makes the brokers roll and compact the tables every few seconds, so that every recovery of the run meets
// compacted tails. The index they keep whole, for the judge.
func (g *rig) compactSoon(ctx context.Context) error {
	set := func(name, value string) kadm.AlterConfig {
		return kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value}
	}
	results, err := g.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		set("segment.ms", "10000"), set("min.cleanable.dirty.ratio", "0.01"), set("max.compaction.lag.ms", "10000"),
	}, g.topics.Files, g.topics.Workspaces)
	if err != nil {
		return err
	}
	kept, err := g.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{set("min.compaction.lag.ms", "86400000")}, g.topics.Index)
	for _, r := range append(results, kept...) {
		err = errors.Join(err, r.Err)
	}
	return err
}

// start starts all roles and waits until they are ready.
func (g *rig) start(ctx context.Context) error {
	for _, p := range g.all() {
		if err := p.start(); err != nil {
			return err
		}
	}
	for _, p := range g.all() {
		if _, err := awaitReady(ctx, p, 60*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// close ends what is still running.
func (g *rig) close() {
	for _, p := range g.all() {
		if p.alive() {
			_ = p.kill() // it was alive: nothing to learn from the kill
		}
	}
	if g.tmpfs != "" {
		if err := exec.Command("umount", g.tmpfs).Run(); err != nil {
			fmt.Fprintf(os.Stderr, "umount %s: %v\n", g.tmpfs, err)
		}
	}
}

// awaitReady waits until a program says that it is ready, and returns how long that took.
func awaitReady(ctx context.Context, p *program, limit time.Duration) (time.Duration, error) {
	begin := time.Now()
	for !p.ready() {
		switch {
		case !p.alive():
			_, _, err := p.state()
			return 0, fmt.Errorf("%s ended: %w\n%s", p.name, err, p.tail())
		case time.Since(begin) > limit:
			return 0, fmt.Errorf("%s is not ready after %v\n%s", p.name, limit, p.tail())
		case ctx.Err() != nil:
			return 0, ctx.Err()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(begin), nil
}
