package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/topology"
)

// guardedTopics starts a guardedBroker and creates the topics of an installation with 2 partitions on it.
func guardedTopics(t *testing.T) (streams topology.Streams, addr string) {
	t.Helper()
	streams, err := topology.New("fastio", topology.Sizing{Partitions: 2, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	addr = guardedBroker(t, streams).ListenAddrs()[0]
	t.Setenv(passwordVariable, "topics")
	succeed(t, as("topics", addr, "topics", "apply")...)
	return streams, addr
}

// guardedBroker starts a broker with a user for each role, who may do what the role's ACLs say and nothing else. It is
// a bare kfake: package devbroker has no authentication.
func guardedBroker(t *testing.T, streams topology.Streams, more ...topology.Role) *kfake.Cluster {
	t.Helper()
	granted := map[string][]kfake.ACL{}
	for _, a := range aclsOf(append(streams.Roles(), more...), "") {
		resource, pattern := kmsg.ACLResourceTypeTopic, kmsg.ACLResourcePatternTypeLiteral
		switch a.Resource {
		case "group":
			resource = kmsg.ACLResourceTypeGroup
		case "transactional-id":
			resource = kmsg.ACLResourceTypeTransactionalId
		}
		if a.Pattern == "prefixed" {
			pattern = kmsg.ACLResourcePatternTypePrefixed
		}
		for _, name := range a.Operations {
			operation, err := kmsg.ParseACLOperation(name)
			if err != nil {
				t.Fatal(err)
			}
			granted[a.Role] = append(granted[a.Role], kfake.ACL{
				Resource: resource, Name: a.Name, Pattern: pattern, Operation: operation, Allow: true,
			})
		}
	}
	options := []kfake.Opt{
		kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser("PLAIN", "root", "root"),
	}
	for role, acls := range granted {
		options = append(options, kfake.User("SCRAM-SHA-256", role, role, acls...))
	}
	options = append(options, kfake.User("SCRAM-SHA-256", "nobody", "nobody"))
	var half []kfake.ACL // what process needs on topics, but for one, and on no group
	for _, a := range granted["process"] {
		if a.Resource == kmsg.ACLResourceTypeTopic &&
			(a.Name != streams.DLQ.Name || a.Operation != kmsg.ACLOperationWrite) {
			half = append(half, a)
		}
	}
	half = append(half, kfake.ACL{
		Resource: kmsg.ACLResourceTypeTopic, Name: streams.DLQ.Name,
		Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationDescribe, Allow: true,
	})
	options = append(options, kfake.User("SCRAM-SHA-256", "half", "half", half...))
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

// as returns a command line that logs in as user.
func as(user, addr string, args ...string) []string {
	return append(args, "--brokers", addr, "--kafka-sasl-mechanism", "SCRAM-SHA-256", "--kafka-sasl-user", user,
		"--replication", "1", "--min-insync", "1", "--partitions", "2")
}

// Each role with its ACLs alone takes an event from the webhook to the answer.
func TestTheACLsOfEachRoleSuffice(t *testing.T) {
	for _, guarantee := range []string{"at_least_once", "exactly_once"} {
		t.Run(guarantee, func(t *testing.T) { testACLs(t, guarantee) })
	}
}

func testACLs(t *testing.T, guarantee string) {
	t.Helper()
	streams, err := topology.New("fastio", topology.Sizing{Partitions: 2, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	addr := guardedBroker(t, streams).ListenAddrs()[0]
	t.Setenv(secretsVariable, testSecret)
	t.Setenv(passwordVariable, "topics")
	succeed(t, as("topics", addr, "topics", "apply")...)

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 3)
	roles := map[string]string{} // admin address by role
	begin := func(role string, args ...string) {
		t.Helper()
		t.Setenv(passwordVariable, role)
		roles[role] = freeAddr(t)
		ready := make(chan struct{})
		go func() {
			var log bytes.Buffer
			args := append(as(role, addr, role, "--admin-addr", roles[role]), args...)
			if code := run(ctx, args, console{out: &log, err: &log}); code != exitOK {
				ended <- fmt.Errorf("%s: exit %d\n%s", role, code, &log)
				return
			}
			ended <- nil
		}()
		go func() {
			defer close(ready)
			awaitReadyz(ctx, roles[role])
		}()
		select {
		case <-ready:
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(30 * time.Second):
			status, body := (&devProcess{}).ask(t, "http://"+roles[role]+"/readyz")
			t.Fatalf("%s is not ready: %d %s", role, status, body)
		}
	}
	ingress, api := freeAddr(t), freeAddr(t)
	begin("ingest", "--ingress-addr", ingress)
	begin("process", "--data", t.TempDir(), "--instance-id", "one", "--guarantee", guarantee)
	begin("serve", "--data", t.TempDir(), "--api-addr", api)

	// send waits until the event has come through the whole chain, and says so if it has not.
	url, query := "http://"+ingress+"/webhook/fastio", "http://"+api
	if out, errs, code := tidemark(t, "send", "--url", url, "--api-url", query, "--file", "f", "--wait",
		"20s"); code != exitOK || errs != "" {
		t.Errorf("send: exit %d\n%s%s", code, out, errs)
	}
	succeed(t, "get", "123", "f", "--api-url", query)
	stop()
	for range roles {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// Whoever lacks an ACL or has a wrong password is told so at once.
func TestRolesNameMissingACLsAndBadCredentials(t *testing.T) {
	streams, err := topology.New("fastio", topology.Sizing{Partitions: 2, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	cluster := guardedBroker(t, streams)
	addr := cluster.ListenAddrs()[0]
	t.Setenv(passwordVariable, "topics")
	succeed(t, as("topics", addr, "topics", "apply")...)
	refused := func(user, want string) {
		t.Helper()
		t.Setenv(passwordVariable, user)
		_, errs, code := tidemark(t, as(user, addr, "process", "--admin-addr", "127.0.0.1:0", "--data", t.TempDir())...)
		if code != exitFailed || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, %s; want 1 and %q", user, code, errs, want)
		}
	}
	refused("nobody", "topic fastio-events: this user may not describe it: grant the ACL operation Describe")
	refused("ingest", "topic fastio-files-table: this user may not describe it") // the wrong role's user
	refused("half", "topic fastio-dlq: this user may not Write: grant the ACL operation Write")
	refused("half", "group fastio-files: this user may not Read: grant the ACL operation Read")
	// kfake hangs up on a wrong password; Apache Kafka answers.
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		response, ok := request.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		if !ok {
			t.Errorf("a response of type %T", request.ResponseKind())
		}
		response.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return response, nil, true
	})
	refused("process", "SASL_AUTHENTICATION_FAILED")
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// awaitReadyz returns when the process there is ready, or ctx ends.
func awaitReadyz(ctx context.Context, admin string) {
	for ctx.Err() == nil {
		response, err := http.Get("http://" + admin + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}
