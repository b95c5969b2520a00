package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"
)

// An input generates events: workspaces by Zipf's law, a fifth added by default, a tenth deleted, the rest updated,
// and one in twenty sent again with the same id and body. e2e/gen is no load: its histories are kept in memory, and
// full of irregularities.
type input struct {
	random     *rand.Rand
	cumulative []float64
	workspaces []string
	partitions []int32 // of the workspaces
	files      []int   // of the workspaces
	seed       uint64
	total, max int
	added      float64
	recent     []event
	at         time.Time
}

type file struct{ id, name, path, mime string }

type event struct {
	workspace, id string
	partition     int32
	value         []byte
}

var kinds = []struct{ extension, mime string }{
	{"pdf", "application/pdf"},
	{"docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
	{"png", "image/png"},
	{"txt", "text/plain"},
}

var folders = []string{"a", "finance", "2026", "reports", "shared", "archive", "q1", "drafts"}

func newInput(s setup) *input {
	in := &input{
		random: rand.New(rand.NewPCG(s.seed, s.seed)), seed: s.seed, max: s.files, added: s.added,
		at: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	sum := 0.0
	for i := range s.workspaces {
		sum += 1 / float64(i+1)
		in.cumulative = append(in.cumulative, sum)
		workspace := "ws" + in.id(18)
		in.workspaces = append(in.workspaces, workspace)
		in.partitions = append(in.partitions, int32(oracle.Partition("", workspace, s.partitions)))
	}
	in.files = make([]int, s.workspaces)
	return in
}

func (in *input) id(n int) string { return randomID(in.random, n) }

func randomID(random *rand.Rand, n int) string {
	const letters = "0123456789abcdefghijklmnopqrstuv"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[random.IntN(len(letters))]
	}
	return string(b)
}

// workspace chooses one.
func (in *input) workspace() int {
	return sort.SearchFloat64s(in.cumulative, in.random.Float64()*in.cumulative[len(in.cumulative)-1])
}

// next returns the next event, and whether it is sent for the first time.
func (in *input) next() (e event, first bool) {
	if len(in.recent) > 100 && in.random.Float64() < 0.05 {
		return in.recent[in.random.IntN(len(in.recent))], false
	}
	w := in.workspace()
	kind := "updated"
	if x := in.random.Float64(); x < in.added {
		kind = "added"
	} else if x < in.added+0.1 {
		kind = "deleted"
	}
	var f file
	if here := in.files[w]; here == 0 || kind == "added" && in.total < in.max {
		f, kind = in.file(w, here), "added"
		in.files[w]++
		in.total++
	} else {
		f = in.file(w, in.random.IntN(here))
	}
	in.at = in.at.Add(time.Duration(1+in.random.IntN(5)) * time.Millisecond)
	e = event{workspace: in.workspaces[w], id: "evt_" + in.id(26), partition: in.partitions[w]}
	e.value = in.body(kind, e, f)
	if len(in.recent) < 500 {
		in.recent = append(in.recent, e)
	} else {
		in.recent[in.random.IntN(len(in.recent))] = e
	}
	return e, true
}

// file is the n-th of a workspace. It is computed and not kept: millions of files would need gigabytes.
func (in *input) file(workspace, n int) file {
	random := rand.New(rand.NewPCG(in.seed+uint64(workspace), uint64(n)))
	k := kinds[random.IntN(len(kinds))]
	folder := func() string { return folders[random.IntN(len(folders))] }
	name := fmt.Sprintf("report-%d.%s", random.IntN(100_000), k.extension)
	path := "/" + folder() + "/" + folder() + "/" + folder() + "/" + name
	return file{"2" + randomID(random, 28), name, path, k.mime}
}

// body is about 480 bytes, as the provider's are.
func (in *input) body(kind string, e event, f file) []byte {
	return fmt.Appendf(nil, `{"event":"workspace_storage_file_%s","event_id":"%s","workspace_id":"%s","object_id":"%s","name":"%s","path":"%s",`+
		`"size":%d,"hash":"sha256:%016x%016x%016x%016x","mime":"%s","actor_id":"usr_%d","created":"%s","received_at":"%s"}`,
		kind, e.id, e.workspace, f.id, f.name, f.path, in.random.IntN(50_000_000),
		in.random.Uint64(), in.random.Uint64(), in.random.Uint64(), in.random.Uint64(), f.mime, in.random.IntN(500),
		in.at.Format("2006-01-02T15:04:05.000Z"), in.at.Add(137*time.Millisecond).Format("2006-01-02T15:04:05.000Z"))
}

// record is the event as the ingress writes it.
func (e event) record(topic string) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: e.partition, Key: []byte(e.workspace), Value: e.value}
}

// fill produces the events and returns how many of them are no repeats, and how many files they name.
func (s setup) fill(ctx context.Context, topic string) (unique, files int, err error) {
	client, err := rig.Client(s.brokers, kgo.ProducerLinger(20*time.Millisecond))
	if err != nil {
		return 0, 0, err
	}
	defer client.Close()
	in := newInput(s)
	first := kgo.AbortingFirstErrPromise(client)
	for range s.events {
		e, new := in.next()
		if new {
			unique++
		}
		client.Produce(ctx, e.record(topic), first.Promise())
	}
	if err := first.Err(); err != nil {
		return 0, 0, fmt.Errorf("produce input: %w", err)
	}
	return unique, in.total, nil
}

// per rounds a quotient to something readable.
func per(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	f, err := strconv.ParseFloat(strconv.FormatFloat(a/b, 'g', 4, 64), 64)
	if err != nil {
		return a / b
	}
	return f
}
