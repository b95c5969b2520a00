package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"tidemark/doctor"
	"tidemark/kafka"
	"tidemark/topology"
)

// A sink is one more role: ACLs, the checks before it starts, and the doctor need nothing else.
func TestASinkIsOneMoreRole(t *testing.T) {
	streams, err := topology.New("fastio", topology.Sizing{Partitions: 2, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	sink := topology.Role{
		Name: "sink-mine", Command: "sink mine",
		Topics: []topology.TopicUse{
			{Topic: streams.Index, Operations: []string{"Read"}},
			{Topic: streams.Notify, Operations: []string{"Read"}},
			{Topic: streams.DLQ, Operations: []string{"Write"}},
		},
		Groups: []topology.GroupUse{
			{Name: "fastio-sink-mine", Operations: []string{"Read"}, Consumes: streams.Index, Effect: "mine is stale"},
		},
	}
	roles := append(streams.Roles(), sink)

	var granted []string
	for _, a := range aclsOf(roles, "User:{role}") {
		if a.Principal == "User:sink-mine" {
			granted = append(granted, a.Resource+" "+a.Name+" "+strings.Join(a.Operations, ","))
		}
	}
	if want := []string{
		"topic fastio-index Read,DescribeConfigs", "topic fastio-notify Read,DescribeConfigs",
		"topic fastio-dlq Write,DescribeConfigs",
		"group fastio-sink-mine Read",
	}; !slices.Equal(granted, want) {
		t.Errorf("ACLs %q, want %q", granted, want)
	}

	addr := guardedBroker(t, streams, sink).ListenAddrs()
	as := func(user string) kafka.Config {
		return kafka.Config{
			Brokers: addr,
			SASL:    kafka.SASLConfig{Mechanism: "SCRAM-SHA-256", User: user, Password: user},
		}
	}
	if _, err := kafka.ApplyTopics(t.Context(), as("topics"), streams.Topics()); err != nil {
		t.Fatal(err)
	}
	validate := func(user string) error {
		h, err := newHost(t.Context(), slog.New(slog.DiscardHandler), adminFlags{AdminAddr: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		defer h.admin.Close()
		h.await(as(user), streams, sink)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		go func() { <-h.gate.open; cancel() }()
		if err := h.gate.run(ctx); err != nil {
			return err
		}
		return h.gate.Ready()
	}
	if err := validate("sink-mine"); err != nil {
		t.Errorf("start-up gate: %v", err)
	}
	denied, ok := errors.AsType[*kafka.Denied](validate("process")) // who may not join the sink's group
	if !ok || denied.Resource != "group fastio-sink-mine" {
		t.Errorf("start-up gate of a user without the group's ACL: %v", denied)
	}

	found := map[string]string{}
	doctor.Run(t.Context(), doctor.Config{
		Kafka: as("sink-mine"), Streams: streams, Single: streams, Roles: roles, User: []string{"sink-mine"},
		Watch: 500 * time.Millisecond, NoWebhooks: doctor.Finding{Status: doctor.Skipped},
		Resembles: func(string) string { return "" },
	}, func(f doctor.Finding) { found[f.Check] = f.Status + " " + f.What + " " + f.Fix })
	if want := "ok this user may do all that sink-mine does "; found["acls"] != want {
		t.Errorf("acls: %q, want %q", found["acls"], want)
	}
	if want := "start `tidemark sink mine`"; !strings.Contains(found["sink-mine group"], want) {
		t.Errorf("sink-mine group: %s, want %q", found["sink-mine group"], want)
	}
}
