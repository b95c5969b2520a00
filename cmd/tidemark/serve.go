package main

import (
	"context"
	"errors"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"tidemark/deadletters"
	"tidemark/topology"
	"tidemark/views"
	"tidemark/web"
)

// serveFlags are the settings of the query API.
type serveFlags struct {
	APIAddr      string        `help:"Address of the query API." name:"api-addr" default:"${api_addr}" placeholder:"HOST:PORT" address:"listen"`
	MaxStaleness time.Duration `help:"Oldest answer that is given; when the data is older the answer is 503. 0 for any age." default:"0" placeholder:"TIME"`
	corsFlags
	CursorLifetime time.Duration `help:"How long a cursor of the changes is valid." default:"720h" placeholder:"TIME"`
	History        time.Duration `help:"How long changes of files are kept, for their history and for answers as of an earlier position; at most 720h, the retention of the notify topic. 0 for none." default:"168h" placeholder:"TIME"`
}

// Values of --hold.
const (
	holdAll   = "all"
	holdShare = "share"
)

// holdFlags say which partitions an instance of serve holds.
type holdFlags struct {
	Hold         string `help:"Which partitions this instance keeps a copy of: all, or a share. With share the instances divide the partitions among themselves, and pass a request on to the instance that holds its workspace." enum:"all,share" default:"all" placeholder:"WHICH"`
	AdvertiseURL string `help:"With --hold share: where the other instances reach this one's query API. Without it http:// and --api-addr, if that names a host." name:"advertise-url" placeholder:"URL" address:"url"`
}

// share returns the settings of an instance that holds a share; nil: it holds all.
func (f holdFlags) share(apiAddr string) (*views.Share, error) {
	if f.Hold != holdShare {
		if f.AdvertiseURL != "" {
			return nil, usagef("--advertise-url needs --hold share")
		}
		return nil, nil
	}
	if f.AdvertiseURL != "" {
		u, err := url.Parse(f.AdvertiseURL)
		if err != nil || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, usagef("--advertise-url %q: give a scheme, a host and a port only, as in http://10.0.0.7:8080",
				f.AdvertiseURL)
		}
		return &views.Share{URL: u.Scheme + "://" + u.Host}, nil
	}
	host, port, err := net.SplitHostPort(apiAddr)
	if ip := net.ParseIP(host); err != nil || host == "" || port == "0" || ip != nil && ip.IsUnspecified() {
		return nil, usagef("--hold share: the other instances cannot be told to connect to --api-addr %s: set "+
			"--advertise-url to where they reach this instance, as http://10.0.0.7:8080", apiAddr)
	}
	return &views.Share{URL: "http://" + apiAddr}, nil
}

// maxReaders is how many connections the query API has open: a request may wait for up to a minute, and an answer may
// be megabytes. Further connections wait in the kernel's backlog.
const maxReaders = 4096

// A serveCommand answers queries.
type serveCommand struct {
	roleFlags
	dataFlags
	serveFlags
	holdFlags
	drainFlags
	searchFlags
	DeadLetters bool `help:"Serve the dead letters at /v1/dlq, to list, replay and drop them. Needs a token with the right admin for all workspaces where tokens are needed, and the ACLs of the role serve-dead-letters."`
}

// Run answers until ctx ends.
func (c *serveCommand) Run(ctx context.Context, con console) error {
	if err := c.refuseEmbedded(); err != nil {
		return err
	}
	if err := errors.Join(c.checkAPI(c.APIAddr), c.checkOrigins()); err != nil {
		return err
	}
	role := topology.Streams.ServeRole
	if c.SearchURL != "" {
		role = topology.Streams.ServeSearchRole
	}
	share, err := c.share(c.APIAddr)
	if err != nil {
		return err
	}
	if share != nil {
		held := role
		role = func(s topology.Streams) topology.Role { return s.ShareRole(held(s)) }
	}
	if c.DeadLetters {
		reading := role
		role = func(s topology.Streams) topology.Role { return s.ServeDeadLettersRole(reading(s)) }
	}
	return c.runRole(ctx, con, role, func(h *host) ([]service, error) {
		h.delay = c.DrainDelay
		c.warn(h.log, "--api-addr", c.APIAddr)
		if c.Auth == "" {
			h.log.WarnContext(ctx, "--auth is not set: every user of this host can read all workspaces")
		}
		if c.DeadLetters {
			h.openDeadLetters()
			if c.Auth == "" {
				h.log.WarnContext(ctx, "--dead-letters: every user of this host can replay and drop dead letters")
			}
		}
		var searcher *views.Search
		if c.SearchURL != "" {
			index, err := c.open(h.log, h.streams)
			if err != nil {
				return nil, err
			}
			searcher = c.search(index)
		}
		return c.views(ctx, h, viewsConfig{data: c.Data, search: searcher, share: share})
	})
}

// viewsConfig is what the query API has of other parts of the process.
type viewsConfig struct {
	data       string
	duplicates func() int64  // nil: no processor is in this process
	search     *views.Search // nil: none
	share      *views.Share  // nil: it holds all partitions
}

// views builds the query API, and the views that it answers from, which are updated once the gate is open.
func (f serveFlags) views(ctx context.Context, h *host, conf viewsConfig) ([]service, error) {
	log := h.log.With("role", "serve")
	dead := deadletters.NewCounter(deadletters.New(h.kafka, h.streams), log)
	page, err := web.Handler(views.AcceptsGzip)
	if err != nil {
		return nil, err
	}
	config := views.Config{
		Kafka: h.kafka, Streams: h.streams, Dir: filepath.Join(conf.data, "views"),
		Log: log, Metrics: h.registry,
		MaxStaleness: f.MaxStaleness, CursorLifetime: f.CursorLifetime, History: f.History,
		Duplicates: conf.duplicates, DeadLettered: dead.Open, Search: conf.search, Share: conf.share, Page: page,
	}
	if h.apiGuard != nil {
		config.Authorize, config.Workspaces = h.apiGuard.Authorize, h.apiGuard.Workspaces
		config.Session, config.AuthorizeAdmin = h.apiGuard.SessionHandler(), h.apiGuard.AuthorizeAdmin
	}
	if h.dead != nil {
		config.DeadLetters = h.dead.QueryAPI()
	}
	server, err := views.New(config)
	if err != nil {
		return nil, err
	}
	listener, err := listen(ctx, "--api-addr", f.APIAddr)
	if err != nil {
		return nil, err
	}
	h.readiness.Add("views", h.gate.ready(server.Ready))
	api := service{name: "api", addr: listener.Addr().String(), run: func(ctx context.Context) error {
		context.AfterFunc(ctx, server.Stop)
		handler := h.closeConnections(f.crossOrigin(h.gate.handler(server.Handler())))
		var advertised []string // other instances use that name
		if conf.share != nil {
			_, name, _ := strings.Cut(conf.share.URL, "://")
			advertised = append(advertised, name)
		}
		handler = h.flags.allowHosts(h.apiGuard, f.APIAddr, handler, advertised...)
		return serveHTTP(ctx, netutil.LimitListener(listener, maxReaders), httpServer(handler, h.log),
			h.log.With("role", "api"))
	}}
	update := service{name: "views", run: h.gate.then(func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return server.Run(ctx) })
		group.Go(func() error { return dead.Run(ctx) })
		return group.Wait()
	})}
	return []service{api, update}, nil
}
