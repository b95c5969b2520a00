package main

import (
	"context"
	"path/filepath"
	"time"

	"tidemark/doctor"
	"tidemark/kafka"
	"tidemark/parquetlog"
	"tidemark/sinks"
	archiving "tidemark/sinks/archive"
	"tidemark/topology"
)

// s3Flags say where an S3 server is. Its credentials are read as S3 clients do: AWS_ACCESS_KEY_ID and others.
type s3Flags struct {
	S3Endpoint string `help:"S3 server of another provider, like http://127.0.0.1:9000; without it, Amazon's." name:"s3-endpoint" env:"TIDEMARK_S3_ENDPOINT" placeholder:"URL" group:"Archive"`
}

func (f s3Flags) at(url string) parquetlog.Location {
	return parquetlog.Location{URL: url, Endpoint: f.S3Endpoint}
}

// archiveFlags are the settings of the archive.
type archiveFlags struct {
	ArchiveURL    string        `help:"Where events are archived as Parquet: s3://bucket/prefix, or file:///folder${archive_dev}." name:"archive-url" placeholder:"URL" group:"Archive"`
	ArchiveWindow time.Duration `help:"Time that an object covers at most. It is closed a minute after that, also without further events." default:"${archive_window}" placeholder:"TIME" group:"Archive"`
	s3Flags
}

// services returns the archive.
func (f archiveFlags) services(h *host, data, instance string) ([]service, error) {
	config := h.sinkConfig(topology.SinkArchive, instance, h.streams.Events)
	config.ControlRecords = true
	config.BufferBytes, config.Attempt = archiveBuffer, archiveAttempt
	var a *archiving.Archive
	loop, err := sinks.NewPartitionLoop(config, func(ctx context.Context, p *kafka.AssignedPartition) error {
		return a.Partition(ctx, p)
	})
	if err != nil {
		return nil, err
	}
	events := h.streams.Events.Name
	a, err = archiving.New(archiving.Config{
		Location: f.at(f.ArchiveURL), Topic: events, Window: f.ArchiveWindow, Dir: filepath.Join(data, "tmp"),
		TopicID: func(ctx context.Context) (string, error) { return kafka.TopicID(ctx, h.kafka, events) },
		End: func(ctx context.Context, partition int32) (int64, error) {
			spans, err := kafka.StableExtent(ctx, h.kafka, events)
			return spans[partition].To, err
		},
		Retry: loop.Do, Log: config.Log, Metrics: h.registry,
	})
	if err != nil {
		return nil, usageError{err}
	}
	return []service{h.sink(topology.SinkArchive, loop, a.Check)}, nil
}

const (
	archiveBuffer  = 256 << 10       // for each partition: what is archived waits in files
	archiveAttempt = 5 * time.Minute // an upload of 64 MiB may have to wait for one of 4 slots
)

// destination returns the doctor's check, which reads the archive.
func (f archiveFlags) destination(events string) doctor.Destination {
	return doctor.Destination{Name: topology.SinkArchive, Check: func(ctx context.Context) error {
		store, err := f.at(f.ArchiveURL).Open()
		if err != nil {
			return err
		}
		_, err = parquetlog.ReadMarker(ctx, store, events)
		return err
	}}
}
