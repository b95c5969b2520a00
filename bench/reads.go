package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// reads measures serve: how long a copy takes from empty to ready, with all CPUs, and then reads of one file on one
// core. The table topic is filled without a processor. Several binaries are measured by turns.
func reads(ctx context.Context, s setup) (result, error) {
	records, binaries := s.events, strings.Split(s.binary, ",")
	s.events, s.binary = 0, binaries[0]
	i, err := s.install(ctx)
	if err != nil {
		return nil, err
	}
	targets, err := i.fillTable(ctx, records)
	if err != nil {
		return nil, err
	}
	var runs []result
	for round := range s.reps {
		for n := range binaries {
			binary := binaries[(round+n)%len(binaries)]
			run, err := i.read(ctx, binary, records, targets)
			if err != nil {
				return nil, err
			}
			fmt.Fprintln(os.Stderr, run)
			runs = append(runs, run)
		}
	}
	return result{
		"measured": "reads", "files": len(targets), "table_records": records, "connections": s.connections,
		"runs": runs,
	}, i.close(ctx)
}

// fillTable writes rows to the table topic: each file once, and then further versions of some. It returns the paths of
// the files in the query API.
func (i *installation) fillTable(ctx context.Context, records int) (targets []string, err error) {
	client, err := rig.Client(i.brokers, kgo.ProducerLinger(20*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	in := newInput(i.setup)
	rows := make([]*tidemarkv1.FileState, 0, i.setup.files)
	first := kgo.AbortingFirstErrPromise(client)
	for n := range records {
		var row *tidemarkv1.FileState
		if n < i.setup.files {
			w := in.random.IntN(len(in.workspaces))
			row = in.row(in.workspaces[w])
			rows = append(rows, row)
			targets = append(targets, "/v1/workspaces/"+row.GetWorkspaceId()+"/files/"+row.GetFileId())
		} else {
			row = rows[in.random.IntN(len(rows))]
		}
		in.change(row, int64(n))
		value, err := proto.Marshal(row)
		if err != nil {
			return nil, err
		}
		partition := int32(oracle.Partition("", row.GetWorkspaceId(), i.partitions))
		client.Produce(ctx, &kgo.Record{
			Topic: i.topics.Files, Partition: partition, Value: value,
			Key: []byte(tidemarkv1.JoinKey(row.GetWorkspaceId(), row.GetFileId())),
		}, first.Promise())
	}
	if err := first.Err(); err != nil {
		return nil, fmt.Errorf("produce rows: %w", err)
	}
	return targets, nil
}

func (in *input) row(workspace string) *tidemarkv1.FileState {
	f := in.newFile()
	return &tidemarkv1.FileState{
		WorkspaceId: workspace, FileId: f.id, Name: f.name, Path: f.path, Mime: f.mime,
		Status: tidemarkv1.Status_STATUS_ACTIVE, LogId: in.id(22),
		FieldTimes: []uint64{1, 1, 0, 1, 1, 1, 1, 1},
	}
}

// change is what an event does to a row; the dedupe window has 8 entries at most, as with few changes of a file.
func (in *input) change(row *tidemarkv1.FileState, position int64) {
	at, size := in.at.UnixMicro()+position*1000, int64(in.random.IntN(50_000_000))
	row.Version++
	row.Size, row.CreatedAt, row.UpdatedAt, row.LastAt = &size, &at, &at, &at
	row.Hash = fmt.Sprintf("sha256:%016x%016x%016x%016x", in.random.Uint64(), in.random.Uint64(), in.random.Uint64(),
		in.random.Uint64())
	row.ActorId, row.LastEvent = fmt.Sprintf("usr_%d", in.random.IntN(500)), "workspace_storage_file_updated"
	row.LastEventId, row.Position = "evt_"+in.id(26), &tidemarkv1.Position{Offset: position}
	row.Seen = append(row.Seen, in.id(24)...)
	row.Seen = row.Seen[max(0, len(row.Seen)-8*24):]
}

// read starts an instance with an empty disk and measures it.
func (i *installation) read(ctx context.Context, binary string, records int, targets []string) (result, error) {
	command := slices.Concat([]string{"serve", "--history", "0"}, i.flags())
	p := rig.New(binary, i.dir, "serve", command...).Store().Listen("--api-addr")
	defer p.Close()
	begin := time.Now()
	if err := p.Start(); err != nil {
		return nil, err
	}
	if _, err := p.AwaitReady(ctx, patience); err != nil {
		return nil, fmt.Errorf("%w: see %s", err, p.Log)
	}
	took, loaded := time.Since(begin), p.Usage()
	if err := stop(p); err != nil {
		return nil, err
	}
	p.Env = []string{"GOMAXPROCS=1"}
	if err := p.Start(); err != nil {
		return nil, err
	}
	if _, err := p.AwaitReady(ctx, patience); err != nil {
		return nil, err
	}
	readers := &readers{addr: strings.TrimPrefix(p.URL, "http://"), targets: targets}
	if _, err := readers.run(ctx, i.connections, 3*time.Second); err != nil { // fills the cache
		return nil, err
	}
	begin, before := time.Now(), p.Usage()
	latencies, err := readers.run(ctx, i.connections, time.Duration(i.seconds)*time.Second)
	if err != nil {
		return nil, err
	}
	seconds, used := time.Since(begin).Seconds(), p.Usage()
	n := float64(len(latencies))
	return result{
		"binary":        filepath.Base(binary),
		"ready_seconds": per(took.Seconds(), 1), "ready_records_per_s": per(float64(records), took.Seconds()),
		"ready_cpu_us_per_record": per(float64(loaded.CPU.Microseconds()), float64(records)),
		"ready_peak_rss_mb":       int(loaded.PeakMB),
		"reads_per_s":             per(n, seconds),
		"cpu_us_per_read":         per(float64((used.CPU - before.CPU).Microseconds()), n),
		"p50_ms":                  quantile(latencies, 0.50), "p99_ms": quantile(latencies, 0.99),
		"rss_mb": int(used.RSSMB),
	}, errors.Join(stop(p), rig.Wipe(p.Data))
}

// readers read files over connections that stay open, each the next one when the last is answered. They write and read
// HTTP themselves: net/http's client would use as much CPU as the server.
type readers struct {
	addr    string
	targets []string
}

func (r *readers) run(ctx context.Context, connections int, howLong time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, howLong)
	defer cancel()
	var open sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	for n := range connections {
		open.Go(func() {
			mine, err := r.readOn(ctx, rand.New(rand.NewPCG(uint64(n), 1)))
			mu.Lock()
			defer mu.Unlock()
			took, failed = append(took, mine...), errors.Join(failed, err)
		})
	}
	open.Wait()
	return took, failed
}

// readOn reads random files over one connection until ctx ends.
func (r *readers) readOn(ctx context.Context, random *rand.Rand) (took []time.Duration, err error) {
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	var request, body []byte
	for ctx.Err() == nil {
		target := r.targets[random.IntN(len(r.targets))]
		request = fmt.Appendf(request[:0], "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
			target, r.addr)
		begin := time.Now()
		if _, err := c.Write(request); err != nil {
			return nil, err
		}
		if body, err = readAnswer(in, body); err != nil {
			return nil, fmt.Errorf("GET %s: %w", target, err)
		}
		took = append(took, time.Since(begin))
		if id := target[strings.LastIndexByte(target, '/')+1:]; !bytes.Contains(body, []byte(id)) {
			return nil, fmt.Errorf("GET %s: another file: %s", target, body)
		}
	}
	return took, nil
}

// readAnswer reads an answer with status 200 and a Content-Length.
func readAnswer(in *bufio.Reader, body []byte) ([]byte, error) {
	length := -1
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return nil, fmt.Errorf("answered %s", line)
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return nil, err
			}
		}
		if len(line) == 2 {
			break
		}
	}
	if length < 0 {
		return nil, errors.New("an answer without its length")
	}
	body = slices.Grow(body[:0], length)[:length]
	_, err := io.ReadFull(in, body)
	return body, err
}
