package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tidemark/e2e/proxy"
	"tidemark/e2e/rig"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A cluster is three brokers, the proxy in front of them, the relay between them, and a client that goes past the
// proxy.
type cluster struct {
	script string
	state  string
	base   int
	extra  string

	plain, ssl, proxied, proxies []string // ssl requires a client certificate
	certs                        string
	proxy                        *proxy.Proxy
	relay                        *relay
	client                       *kgo.Client
	admin                        *kadm.Client
}

const nodes = 3

// jvm are the brokers' JVM flags. Only the C2 compiler uses the CPU's instructions for AES-GCM. It has to compile
// them early: until then TLS takes two fifths of a broker's CPU time.
const jvm = "-XX:+UseSerialGC -XX:CompileCommand=quiet " +
	"-XX:CompileCommand=CompileThresholdScaling,com.sun.crypto.provider.*::*,0.05"

func (c *cluster) run(args ...string) (string, error) {
	cmd := exec.Command(c.script, args...)
	cmd.Env = append(os.Environ(), "TIDEMARK_CLUSTER_STATE="+c.state, "BASE="+strconv.Itoa(c.base), "RELAYED=1",
		"EXTRA="+c.extra,
		"KAFKA_JVM="+cmp.Or(os.Getenv("KAFKA_JVM"), jvm))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("cluster.sh %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

// portsFree refuses ports of the ephemeral range: while a broker is down, the kernel may use its port for a connection.
func portsFree(base int) error {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return nil // not Linux: the range is not known
	}
	var from, to int
	if _, err := fmt.Sscan(string(text), &from, &to); err == nil && base+90 >= from && base <= to {
		return fmt.Errorf("-base %d: ports from %d to %d are for connections: a broker may not get its own again",
			base, from, to)
	}
	return nil
}

// up starts the relay, the brokers and the proxy.
func (c *cluster) up() (err error) {
	if c.relay, err = startRelay(c.base, c.state); err != nil {
		return err
	}
	out, err := c.run("up")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "KAFKA_PLAINTEXT":
			c.plain = strings.Split(value, ",")
		case "KAFKA_SSL":
			c.ssl = strings.Split(value, ",")
		case "KAFKA_PROXIED":
			c.proxied = strings.Split(value, ",")
		case "KAFKA_PROXIES":
			c.proxies = strings.Split(value, ",")
		case "KAFKA_CERTS":
			c.certs = value
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(c.certs, "broker.pem"), filepath.Join(c.certs, "broker.key"))
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(filepath.Join(c.certs, "ca.pem"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	listen := map[string]string{}
	for i, broker := range c.proxied {
		listen[broker] = c.proxies[i]
	}
	c.proxy, err = proxy.Start(proxy.Config{
		Brokers: c.proxied, Listen: listen,
		Server: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		Client: &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		return err
	}
	if c.client, err = rig.Client(c.plain); err != nil {
		return err
	}
	c.admin = kadm.NewClient(c.client)
	return nil
}

// down ends what up started. With keep, data and logs stay.
func (c *cluster) down(keep bool) error {
	if c.proxy != nil {
		c.proxy.Close()
	}
	if c.client != nil {
		c.client.Close()
	}
	verb := "wipe"
	if keep {
		verb = "down"
	}
	_, err := c.run(verb)
	if c.relay != nil {
		err = errors.Join(err, c.relay.close()) // after the nodes: they announce to each other that they leave
	}
	return err
}

// ended returns the nodes that do not run.
func (c *cluster) ended() (down []int, err error) {
	out, err := c.run("status")
	for n := 1; n <= nodes; n++ {
		if strings.Contains(out, fmt.Sprintf("node %d: down", n)) {
			down = append(down, n)
		}
	}
	return down, err
}

func (c *cluster) node(verb string, n int) error {
	_, err := c.run(verb, strconv.Itoa(n))
	return err
}

// controller returns the node that leads the quorum.
func (c *cluster) controller(ctx context.Context) (int, error) {
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic = "__cluster_metadata"
	topic.Partitions = append(topic.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, c.client)
	if err != nil {
		return 0, err
	}
	if len(resp.Topics) == 0 || len(resp.Topics[0].Partitions) == 0 {
		return 0, errors.New("the answer about the quorum has no leader")
	}
	return int(resp.Topics[0].Partitions[0].LeaderID), nil
}

// leaders returns the leader of each partition of a topic.
func (c *cluster) leaders(ctx context.Context, topic string) (map[int32]int, error) {
	found, err := c.admin.ListTopics(ctx, topic)
	if err != nil {
		return nil, err
	}
	leaders := map[int32]int{}
	for _, p := range found[topic].Partitions {
		leaders[p.Partition] = int(p.Leader)
	}
	return leaders, nil
}

// replicated waits until no partition of any topic lacks a replica.
func (c *cluster) replicated(ctx context.Context, limit time.Duration) error {
	last := ""
	_, err := rig.Until(ctx, limit, func() (bool, error) {
		short, err := c.short(ctx)
		last = fmt.Sprint(short, err)
		return err == nil && short == "", nil
	})
	if err != nil {
		return fmt.Errorf("replicas are missing: %s: %w", last, err)
	}
	return nil
}

// short names a partition that lacks a replica, or for which the nodes' metadata differ: a node that was isolated
// answers from outdated metadata until it has caught up.
func (c *cluster) short(ctx context.Context) (short string, err error) {
	type leader struct{ node, epoch int32 }
	first := map[string]leader{}
	for n := 1; n <= nodes; n++ {
		resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, c.client.Broker(n))
		if err != nil {
			return "", fmt.Errorf("node %d: %w", n, err)
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				name, is := fmt.Sprintf("%s/%d", *t.Topic, p.Partition), leader{p.Leader, p.LeaderEpoch}
				if n == 1 {
					first[name] = is
				}
				if len(p.ISR) < nodes || p.Leader < 0 {
					return fmt.Sprintf("%s has the in-sync replicas %v by node %d", name, p.ISR, n), nil
				}
				if first[name] != is {
					return fmt.Sprintf("%s is led by %v by node 1, by %v by node %d", name, first[name], is, n), nil
				}
			}
		}
	}
	return "", nil
}
