package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"tidemark/devbroker"
	"tidemark/ingress"
	"tidemark/kafka"
	"tidemark/processors"
	"tidemark/sinks/search"
	"tidemark/topology"
)

// A devCommand runs everything in one process.
type devCommand struct {
	Brokers   []string `help:"Use this cluster instead of the embedded broker." placeholder:"HOST:PORT" address:"dial" group:"Kafka"`
	KafkaAddr string   `help:"Address of the embedded broker, on loopback." default:"127.0.0.1:9092" placeholder:"HOST:PORT" address:"listen" group:"Kafka"`
	securityFlags
	sizingFlags
	Data string `help:"Directory of the embedded broker, the local stores, the archive and the secret." default:"./.tidemark" placeholder:"DIR"`
	ingestFlags
	processFlags
	serveFlags
	searchFlags
	notifyFlags
	archiveFlags
	adminFlags
	logFlags
}

// Run starts the broker and every role, and prints an introduction and "ready". When ctx ends it drains in this order:
//
//	dead letters ─▶ ingress ─▶ api ─▶ files ─▶ workspaces ─▶ sinks ─▶ views ─▶ admin ─▶ broker
func (c *devCommand) Run(ctx context.Context, con console) (err error) {
	if c.InstanceID == "" && len(c.Brokers) == 0 {
		c.InstanceID = "dev" // unique: the data directory is locked
	}
	if err := c.check(); err != nil {
		return err
	}
	if err := errors.Join(c.checkAPI(c.APIAddr), c.checkOrigins()); err != nil {
		return err
	}
	if _, err := c.aliases(); err != nil { // before the secret and the data directory are created
		return err
	}
	streams, err := c.streams()
	if err != nil {
		return err
	}
	signer, err := c.signer()
	if err != nil {
		return err
	}
	h, err := newHost(ctx, c.logger(con.err), c.adminFlags)
	if err != nil {
		return err
	}
	c.warn(h.log, "--api-addr", c.APIAddr)
	progress := newProgress(con.err)
	config, stop, err := c.connect(ctx, h, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	h.setGate(config, streams, streams.Topics(), func(ctx context.Context) error {
		return createTopics(ctx, config, streams, progress)
	})
	webhooks, err := c.ingress(ctx, h, signer.scheme, signer.secrets)
	if err != nil {
		return err
	}
	h.serveDeadLetters()
	conf := c.groups(h, c.Data)
	files := processors.NewFiles(conf)
	groups := []service{h.group("files", files), h.group("workspaces", processors.NewWorkspaces(conf))}
	index, delivery, err := c.sinks(h)
	if err != nil {
		return err
	}
	query, err := c.views(ctx, h, viewsConfig{data: c.Data, duplicates: files.Duplicates, search: c.search(index)})
	if err != nil {
		return err
	}
	api, views := query[0], query[1]
	welcome := welcome{
		webhooks: "http://" + dialable(webhooks.addr) + ingress.Path,
		api:      "http://" + dialable(api.addr),
		admin:    "http://" + dialable(h.admin.Addr().String()),
		brokers:  config.Brokers, partitions: streams.Events.Partitions, embedded: len(c.Brokers) == 0,
		archive: c.ArchiveURL, signer: signer, tokens: h.apiGuard != nil,
	}
	services := append([]service{announcement(con, h, progress, welcome), webhooks, api}, groups...)
	services = append(services, delivery...)
	return h.run(ctx, append(services, views)...)
}

// announcement returns the service that prints the introduction once every role is ready.
func announcement(con console, h *host, progress *progress, welcome welcome) service {
	return service{name: "announcement", run: func(ctx context.Context) error {
		if !progress.awaitReady(ctx, h.readiness) {
			return nil
		}
		if err := welcome.print(con.out); err != nil {
			return err
		}
		<-ctx.Done()
		progress.say("draining", "press Ctrl-C again to end at once")
		return nil
	}}
}

// sinks returns the search index, nil without one, and the services of the sinks.
func (c *devCommand) sinks(h *host) (*search.Sink, []service, error) {
	var index *search.Sink
	var services []service
	// On a shared cluster an index in this process would take the partitions of others' search sinks.
	if c.SearchURL != "" && (len(c.Brokers) == 0 || c.refuseEmbedded() == nil) {
		var err error
		if index, err = c.open(h.log, h.streams); err != nil {
			return nil, nil, err
		}
		if services, err = c.searchFlags.services(h, index, c.InstanceID); err != nil {
			return nil, nil, err
		}
	}
	if c.NotifyRules != "" {
		rules, err := c.notifyFlags.services(h, c.InstanceID)
		if err != nil {
			return nil, nil, err
		}
		services = append(services, rules...)
	}
	var err error
	if c.ArchiveURL, err = c.archiveURL(); err != nil || c.ArchiveURL == "" {
		return index, services, err
	}
	archive, err := c.archiveFlags.services(h, c.Data, c.InstanceID)
	return index, append(services, archive...), err
}

// archiveURL returns where events are archived, which is empty for no archive. On a shared cluster that is the default:
// a folder of this process would have some partitions, and the archives of others the rest.
func (c *devCommand) archiveURL() (string, error) {
	switch {
	case strings.EqualFold(c.ArchiveURL, "none"):
		return "", nil
	case c.ArchiveURL != "" || len(c.Brokers) > 0:
		return c.ArchiveURL, nil
	}
	folder, err := filepath.Abs(filepath.Join(c.Data, "archive"))
	return (&url.URL{Scheme: "file", Path: folder}).String(), err
}

// connect returns the client settings for the given cluster, or starts the embedded broker; stop closes that.
func (c *devCommand) connect(ctx context.Context, h *host, progress *progress) (config kafka.Config, stop func() error,
	err error,
) {
	stop = func() error { return nil }
	brokers := c.Brokers
	if len(brokers) == 0 {
		dir := filepath.Join(c.Data, "broker")
		// The broker outlives ctx: the roles commit to it while they drain.
		broker, err := devbroker.Start(context.WithoutCancel(ctx),
			devbroker.Config{Dir: dir, Addr: c.KafkaAddr, Log: h.log.With("role", "broker")})
		if err != nil {
			return config, nil, fmt.Errorf("--kafka-addr %s, --data %s: %w", c.KafkaAddr, c.Data, err)
		}
		progress.say("broker", "embedded, on "+broker.Addr()+", data in "+dir)
		brokers, stop = []string{broker.Addr()}, broker.Close
	}
	if config, err = c.config(brokers); err != nil {
		return config, nil, errors.Join(err, stop())
	}
	return config, stop, nil
}

func createTopics(ctx context.Context, config kafka.Config, streams topology.Streams, progress *progress) error {
	created, err := kafka.ApplyTopics(ctx, config, streams.Topics())
	if err != nil {
		return err
	}
	if len(created) > 0 {
		progress.say("topics", fmt.Sprintf("%d created", len(created)))
	}
	return nil
}

// A signer has the secrets of dev: the ingress accepts them, and the printed example is signed with one.
type signer struct {
	scheme    ingress.Scheme
	secrets   []ingress.Secret
	generated string // the secret that dev generated; empty if secrets were given
	path      string // the file of that secret
}

// signer returns the secrets that were given, else the one in the data directory, which the first start generates.
func (c *devCommand) signer() (signer, error) {
	scheme, err := c.scheme()
	if err != nil {
		return signer{}, err
	}
	secrets, err := c.secrets(scheme)
	if !errors.Is(err, errNoSecrets) {
		return signer{scheme: scheme, secrets: secrets}, err
	}
	generated, err := devSecret(c.Data, scheme)
	if err != nil {
		return signer{}, err
	}
	path := devSecretFile(c.Data, scheme)
	secrets, err = ingress.ReadSecretsFile(scheme, path)
	return signer{scheme: scheme, secrets: secrets, generated: generated, path: path}, err
}
