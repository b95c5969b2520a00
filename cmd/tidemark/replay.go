package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/kafka"
	"tidemark/parquetlog"
	"tidemark/processors"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/replay"
	"tidemark/topology"
)

// A replayCommand processes events of the past again.
type replayCommand struct {
	installationFlags
	dataFlags
	From      given      `help:"Where to begin: start, a time like 2026-11-24T12:00:00Z, a day, how long ago, like 2h, or positions, like 7:1234,8:56." default:"start" placeholder:"WHERE" env:"-"`
	To        given      `help:"Where to stop: end, or like --from. The position itself is not included." default:"end" placeholder:"WHERE" env:"-"`
	Workspace given      `help:"Only the events of this workspace." placeholder:"WS" env:"-"`
	Event     givenList  `help:"Only events of this type, or of one of several separated by commas." placeholder:"TYPE" env:"-"`
	Group     given      `help:"Fold into the table of a group with this name, to compare with the live one, and produce nothing else." placeholder:"NAME" env:"-"`
	Rate      float64    `help:"Events per second; 0 for no limit." default:"0" placeholder:"N" env:"-"`
	Force     bool       `help:"Also replay events without a time, which overwrite newer state, and those that touch no file, whose notices and counts are repeated." env:"-"`
	Yes       bool       `help:"Produce the events to the topic. Without --yes and --group it is a dry run." env:"-"`
	Fresh     bool       `help:"Forget an interrupted replay into the topic, and start over." env:"-"`
	Archive   given      `help:"With --group: also fold the events that only the archive has: s3://bucket/prefix or file:///folder, as in --archive-url." placeholder:"URL" env:"-"`
	S3        string     `name:"s3-endpoint" help:"URL of the S3 server of --archive; Amazon's if not given." placeholder:"URL" env:"TIDEMARK_S3_ENDPOINT"`
	LogLevel  slog.Level `help:"Lowest level that the group of --group logs." default:"error" placeholder:"LEVEL" env:"-"`
}

// Run replays into the topic or into a group of its own.
func (c *replayCommand) Run(ctx context.Context, con console) error {
	if err := checkRate("--rate", c.Rate); err != nil {
		return err
	}
	config, streams, err := c.connect()
	if err != nil {
		return err
	}
	if c.Archive != "" && (c.Group == "" || c.From != "start" || c.To != "end") {
		return usagef("--archive is for a table of its own, from all events: give --group, and no --from and --to")
	}
	selection := replay.Selection{
		From: string(c.From), To: string(c.To), WorkspaceID: string(c.Workspace), Events: c.Event,
	}
	if c.Group != "" {
		if c.Yes || c.Fresh || c.Force {
			return usagef("--yes, --fresh and --force are for a replay into the topic, and --group sends nothing")
		}
		if streams, err = c.sized(ctx, config, streams); err == nil {
			err = c.rebuild(ctx, con, config, streams, selection)
		}
	} else {
		err = c.republish(ctx, con, config, streams, selection)
	}
	if wrong, ok := errors.AsType[*replay.BadBound](err); ok {
		return usagef("--%w", wrong)
	}
	return err
}

// sized returns the streams with the partition count and replication of the live table, for the table to compare with
// it.
func (c *replayCommand) sized(
	ctx context.Context, config kafka.Config, streams topology.Streams,
) (topology.Streams, error) {
	size, err := kafka.SizingOf(ctx, config, streams.Files.Name)
	if err != nil {
		return streams, err
	}
	return topology.New(c.TopicPrefix, size)
}

// republish appends events to the events topic again.
func (c *replayCommand) republish(
	ctx context.Context, con console, config kafka.Config, streams topology.Streams, selection replay.Selection,
) error {
	bar := newBar(con.err)
	again := &replay.Republish{
		Kafka: config, Events: streams.Events.Name, Group: streams.ReplayGroup,
		Select: selection, Force: c.Force, Rate: c.Rate, Report: bar.show,
	}
	spans, resumed, err := again.Spans(ctx, c.Fresh)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d records of %s (%s) in %d partitions",
		spans.Len(), streams.Events.Name, selection, len(spans))
	if resumed {
		what += ", the rest of an interrupted replay"
	}
	if !c.Yes {
		con.note("Nothing was done: --yes would read %s, and send the selected ones again.", what)
		return nil
	}
	if c.Fresh {
		if err := again.Forget(ctx); err != nil {
			return err
		}
	}
	con.note("Reading %s.", what)
	count, err := again.Run(ctx, spans)
	bar.end()
	if _, printed := fmt.Fprintf(con.out, "%d sent again, %d not selected, %d skipped, %d are dead letters\n",
		count.Sent, count.NotSelected, count.Skipped, count.Invalid); err == nil {
		err = printed
	}
	if count.FirstSkipped != "" {
		con.note("The first that was skipped is %s.", count.FirstSkipped)
	}
	if count.FirstInvalid != "" {
		con.note("The first dead letter is %s. See `tidemark dlq`.", count.FirstInvalid)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted with about %d records to go: run it again with the same flags to continue",
			count.Remaining)
	}
	return err
}

// rebuild folds events into the table of another group.
func (c *replayCommand) rebuild(
	ctx context.Context, con console, config kafka.Config, streams topology.Streams, selection replay.Selection,
) error {
	target, err := replay.Target(streams, string(c.Group))
	if err != nil {
		return usagef("--group: %w", err)
	}
	dir := filepath.Join(c.Data, "replay", target.FilesGroup)
	bar := newBar(con.err)
	b := &replay.Rebuild{Kafka: config, Streams: target, Dir: dir, Select: selection, Rate: c.Rate, Report: bar.show}
	if c.Archive != "" {
		if b.Archive, err = c.openArchive(ctx, dir, target.Events.Name); err != nil {
			return err
		}
		b.ArchiveURL = string(c.Archive)
	}
	b.Fold = func(ctx context.Context, admit func(*tidemarkv1.Event, *tidemarkv1.Position) bool) error {
		conf := processors.Config{
			Kafka: config, Streams: target, Dir: dir, Metrics: prometheus.NewRegistry(), TableOnly: true, Admit: admit,
			Join: b.Join,
			Log:  logFlags{LogLevel: c.LogLevel, LogFormat: "auto"}.logger(con.err),
		}
		return processors.NewFiles(conf).Run(ctx)
	}
	con.note("Folding %s (%s) into %s.", streams.Events.Name, selection, target.Files.Name)
	err = b.Run(ctx)
	bar.end()
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: run it again with the same flags to continue")
	}
	if errors.Is(err, processors.ErrTopicRecreated) {
		return fmt.Errorf("%s has rows of an events topic that was recreated since: choose another --group",
			target.Files.Name)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(con.out, "%s has the selected events. Compare: tidemark diff files %s\n",
		target.Files.Name, c.Group)
	return err
}

// openArchive returns a reader of the archived events.
func (c *replayCommand) openArchive(ctx context.Context, dir, topic string) (*replay.Archive, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("create the folder of the replay: %w", err)
	}
	return replay.OpenArchive(ctx, parquetlog.Location{URL: string(c.Archive), Endpoint: c.S3}, topic, dir)
}
