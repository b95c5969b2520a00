package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"
	"tidemark/kafka/epochs"

	"github.com/twmb/franz-go/pkg/kadm"
)

const (
	partitions = 8
	drainDelay = 2 * time.Second  // of ingress instances
	drainLimit = 90 * time.Second // after SIGTERM, as documented
	secret     = "fault-secret-of-thirty-two-bytes-or-more"
)

// An installation has topics, ACLs and processes on a cluster.
type installation struct {
	*cluster
	dir, prefix, binary string
	guarantee           epochs.Guarantee
	topics              oracle.Topics

	ingress, process []*rig.Program
	serve            *rig.Program
	dlqACL           *kadm.ACLBuilder // allows the processors to write dead letters
	tmpfs            string           // mounted for a processor's store; empty where that is not allowed
}

// newInstallation creates topics and ACLs, and starts nothing.
func newInstallation(ctx context.Context, c *cluster, dir, prefix, binary string,
	guarantee epochs.Guarantee,
) (*installation, error) {
	g := &installation{
		cluster: c, dir: filepath.Join(dir, prefix), prefix: prefix, binary: binary,
		guarantee: guarantee,
	}
	g.topics = oracle.TopicsOf(prefix)
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		return nil, err
	}
	if err := rig.CreateTopics(ctx, binary,
		append(g.sizing(), "--brokers", strings.Join(c.plain, ","))...); err != nil {
		return nil, err
	}
	if err := g.grant(ctx); err != nil {
		return nil, err
	}
	if err := g.compactSoon(ctx); err != nil {
		return nil, err
	}
	for i := range 2 {
		g.ingress = append(g.ingress,
			g.role("ingest", fmt.Sprint("ingress", i+1), "--drain-delay", drainDelay.String()).Listen("--ingress-addr"))
		g.process = append(g.process, g.newProcess(fmt.Sprint(i+1), "--instance-id", instance(i)))
	}
	g.tmpfs = mount(g.process[0].Data)
	g.serve = g.role("serve", "serve").Listen("--api-addr").Store()
	return g, nil
}

// mount mounts a small tmpfs on a folder, and returns "" where that is not allowed.
func mount(dir string) string {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return ""
	}
	if err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1500m", "tmpfs", dir).Run(); err != nil {
		return ""
	}
	return dir
}

func (g *installation) sizing() []string {
	return []string{"--topic-prefix", g.prefix, "--partitions", strconv.Itoa(partitions)}
}

// security has a role connect through the proxy, with TLS and its SCRAM user.
func (g *installation) security(role string) (flags, env []string) {
	return []string{
		"--brokers", strings.Join(g.proxies, ","), "--kafka-tls", "--kafka-ca-file", filepath.Join(g.certs, "ca.pem"),
		"--kafka-sasl-mechanism", "SCRAM-SHA-512", "--kafka-sasl-user", "tidemark-" + role,
	}, []string{"TIDEMARK_KAFKA_SASL_PASSWORD=tidemark-" + role + "-secret", "TIDEMARK_WEBHOOK_SECRETS=" + secret}
}

// certificate has a role connect to the brokers directly, with a client certificate for the user.
func (g *installation) certificate(user string) []string {
	file := func(name string) string { return filepath.Join(g.certs, name) }
	return []string{
		"--brokers", strings.Join(g.ssl, ","), "--kafka-tls", "--kafka-ca-file", file("ca.pem"),
		"--kafka-cert-file", file(user + ".pem"), "--kafka-key-file", file(user + ".key"),
	}
}

func (g *installation) role(command, name string, args ...string) *rig.Program {
	flags, env := g.security(command)
	if command == "serve" {
		flags, env = g.certificate("tidemark-serve"), nil
	}
	p := rig.New(g.binary, g.dir, name, slices.Concat([]string{command}, g.sizing(), flags, args)...)
	p.Env = env
	return p
}

// instance is the instance id of the i-th processor.
func instance(i int) string { return fmt.Sprint("p", i+1) }

// transactional reports whether the processors run with exactly_once.
func (g *installation) transactional() bool { return g.guarantee == epochs.ExactlyOnce }

func (g *installation) newProcess(name string, args ...string) *rig.Program {
	if g.transactional() {
		args = append(args, "--guarantee", string(epochs.ExactlyOnce))
	}
	return g.role("process", "process"+name, args...).Store()
}

func (g *installation) all() []*rig.Program {
	all := append(append([]*rig.Program{}, g.ingress...), g.process...)
	if g.serve != nil {
		all = append(all, g.serve)
	}
	return all
}

// grant creates the ACLs that `tidemark topics acls` prints, and no other.
func (g *installation) grant(ctx context.Context) error {
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
			"Read": kadm.OpRead, "Write": kadm.OpWrite, "Describe": kadm.OpDescribe,
			"DescribeConfigs": kadm.OpDescribeConfigs, "Create": kadm.OpCreate,
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
	g.dlqACL = kadm.NewACLs().Allow("User:tidemark-process").AllowHosts("*").ResourcePatternType(
		kadm.ACLPatternLiteral).
		Topics(g.topics.DLQ).Operations(kadm.OpWrite)
	return nil
}

// compactSoon has the brokers roll and compact the tables every few seconds, so that every recovery reads compacted
// segments. The index is not compacted: the judge reads all of it.
func (g *installation) compactSoon(ctx context.Context) error {
	set := func(name, value string) kadm.AlterConfig {
		return kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value}
	}
	results, err := g.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		set("segment.ms", "10000"), set("min.cleanable.dirty.ratio", "0.01"), set("max.compaction.lag.ms", "10000"),
	}, g.topics.Files, g.topics.Workspaces)
	if err != nil {
		return err
	}
	kept, err := g.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{set("min.compaction.lag.ms", "86400000")},
		g.topics.Index)
	for _, r := range append(results, kept...) {
		err = errors.Join(err, r.Err)
	}
	return err
}

// start starts all roles and waits until they are ready.
func (g *installation) start(ctx context.Context) error {
	for _, p := range g.all() {
		if err := p.Start(); err != nil {
			return err
		}
	}
	for _, p := range g.all() {
		if _, err := p.AwaitReady(ctx, 60*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// close ends what is still running.
func (g *installation) close() {
	for _, p := range g.all() {
		p.Close()
	}
	if g.tmpfs != "" {
		if err := exec.Command("umount", g.tmpfs).Run(); err != nil {
			fmt.Fprintf(os.Stderr, "umount %s: %v\n", g.tmpfs, err)
		}
	}
}
