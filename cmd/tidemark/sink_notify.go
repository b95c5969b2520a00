package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/doctor"
	"tidemark/sinks"
	"tidemark/sinks/notify"
	"tidemark/topology"
)

// notifyFlags are the settings of the notify sink.
type notifyFlags struct {
	NotifyRules      string         `help:"File of rules: who gets messages about which events, and when." placeholder:"FILE" group:"Notify"`
	NotifyLink       string         `help:"Link to a file in messages, with {workspace_id} and {file_id}." placeholder:"URL" group:"Notify"`
	NotifyAllowCIDR  []netip.Prefix `help:"Networks to which webhooks may go although they are not public." name:"notify-allow-cidr" placeholder:"CIDR" group:"Notify"`
	NotifyCAFile     string         `help:"PEM file of the CA certificates of webhooks' receivers, instead of the system's." name:"notify-ca-file" placeholder:"FILE" group:"Notify"`
	SMTPURL          string         `help:"Mail server: smtp://user@host:587 with STARTTLS, or smtps://user@host:465; ?tls=off only on loopback." name:"smtp-url" placeholder:"URL" group:"Notify"`
	SMTPPasswordFile string         `help:"File with the mail server's password; or set TIDEMARK_SMTP_PASSWORD." name:"smtp-password-file" placeholder:"FILE" group:"Notify"`
	SMTPCAFile       string         `help:"PEM file of the CA certificates of the mail server, instead of the system's." name:"smtp-ca-file" placeholder:"FILE" group:"Notify"`
}

// settings returns the settings of all rules, without a store.
func (f notifyFlags) settings(log *slog.Logger, metrics prometheus.Registerer) (c notify.Settings, err error) {
	if err := notify.CheckLink(f.NotifyLink); err != nil {
		return c, usageError{err}
	}
	password, err := secret("TIDEMARK_SMTP_PASSWORD", "--smtp-password-file", f.SMTPPasswordFile)
	if err != nil {
		return c, err
	}
	receivers, err := roots("--notify-ca-file", f.NotifyCAFile)
	if err != nil {
		return c, err
	}
	servers, err := roots("--smtp-ca-file", f.SMTPCAFile)
	if err != nil {
		return c, err
	}
	return notify.Settings{
		Link: f.NotifyLink, Out: notify.NewOutbound(f.NotifyAllowCIDR, receivers),
		SMTPURL: f.SMTPURL, SMTPPassword: password, SMTPRoots: servers,
		Log: log.With("role", "sink"), Metrics: notify.NewMetrics(metrics),
	}, nil
}

// services returns a service for each rule: a rule has a consumer group of its own. A rule that is disabled keeps its
// group's offsets.
func (f notifyFlags) services(h *host, instance string) (services []service, err error) {
	rules, err := notify.Load(f.NotifyRules)
	if err != nil {
		return nil, err
	}
	for _, warning := range rules.Warnings {
		h.log.Warn("rules file", "warning", warning)
	}
	settings, err := f.settings(h.log, h.registry)
	if err != nil {
		return nil, err
	}
	store, err := notify.NewDeliveries(h.kafka, h.streams.Deliveries.Name)
	if err != nil {
		return nil, err
	}
	settings.Store = store
	for i := range rules.Rules {
		rule := &rules.Rules[i]
		name := topology.SinkNotify + "-" + rule.Name
		config := h.sinkConfig(name, instance, h.streams.Notify)
		config.FromEnd = true // nobody wants messages of the past 30 days
		config.Attempt, config.BatchRecords, config.BufferBytes = notifyAttempt, notifyBatch, notifyBuffer
		sink, err := rules.Sink(rule, settings)
		if err != nil {
			return nil, usageError{err}
		}
		loop, err := sinks.NewLoop(config, sink)
		if err != nil {
			return nil, err
		}
		if rule.Disabled {
			services = append(services, service{name: "sink " + name, run: h.gate.then(loop.Hold)})
			continue
		}
		services = append(services, h.sink(name, loop, sink.Check))
	}
	rulesOf := together("sink notify", services...)
	return []service{{name: rulesOf.name, run: func(ctx context.Context) error {
		return errors.Join(rulesOf.run(ctx), store.Close())
	}}}, nil
}

// destinations returns the doctor's checks of the channels that rules use.
func (f notifyFlags) destinations() (all []doctor.Destination, err error) {
	rules, err := notify.Load(f.NotifyRules)
	if err != nil {
		return nil, err
	}
	settings, err := f.settings(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	for i := range rules.Rules {
		sink, err := rules.Sink(&rules.Rules[i], settings)
		if err != nil {
			return nil, err
		}
		name := topology.SinkNotify + "-" + rules.Rules[i].Name
		all = append(all, doctor.Destination{Name: name, Check: sink.Check})
	}
	return all, nil
}

// A batch has several messages, each of which may take up to 20 s. All partitions of all rules have a buffer.
const (
	notifyAttempt = 2 * time.Minute
	notifyBatch   = 100
	notifyBuffer  = 64 << 10
)
