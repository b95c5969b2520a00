package repartition_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/devbroker"
	"tidemark/diff"
	"tidemark/kafka"
	"tidemark/kafka/epochs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/repartition"
	"tidemark/topology"
)

func added(workspace, id, file, more string) happening {
	value := fmt.Sprintf(`{"event":"workspace_storage_file_added","workspace_id":%q,"event_id":%q,"object_id":%q%s}`, workspace, id, file, more)
	return happening{workspace: workspace, key: workspace, value: value, at: time.Now()}
}

func (i *installation) moveTo(to *installation, hook func(*kgo.Record) error) repartition.Move {
	move := repartition.Move{Kafka: i.conf.Kafka, From: i.conf.Streams, To: to.conf.Streams}
	move.Before(hook)
	return move
}

func (i *installation) row(t *testing.T, workspace, file string) *tidemarkv1.FileState {
	t.Helper()
	row := new(tidemarkv1.FileState)
	i.each(t, i.conf.Streams.Files.Name, func(r *kgo.Record) error {
		if string(r.Key) != tidemarkv1.JoinKey(workspace, file) {
			return nil
		}
		row.Reset()
		return proto.Unmarshal(r.Value, row)
	})
	return row
}

func (i *installation) each(t *testing.T, topic string, each func(*kgo.Record) error) {
	t.Helper()
	spans, err := kafka.Extent(t.Context(), i.conf.Kafka, topic)
	if err != nil {
		t.Fatal(err)
	}
	if err := kafka.Read(t.Context(), i.conf.Kafka, topic, spans, each); err != nil {
		t.Fatal(err)
	}
}

func TestWhatKeepsACopyFromBeingComplete(t *testing.T) {
	brokers := devbroker.ForTest(t)
	old, moved := install(t, brokers, 2, epochs.AtLeastOnce).apply(t), install(t, brokers, 3, epochs.AtLeastOnce)
	old.send(t, []happening{added("w", "e1", "f", "")})

	move := old.moveTo(old, nil)
	if _, err := move.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "want another one") {
		t.Errorf("to the same prefix: %v", err)
	}
	old.process(t)

	late := false
	move = old.moveTo(moved, func(r *kgo.Record) error {
		if !late && r.Topic == moved.conf.Streams.Files.Name {
			late = true
			old.send(t, []happening{added("w", "e2", "g", "")})
		}
		return nil
	})
	if _, err := move.Run(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "events arrived meanwhile: 1 records in "+old.conf.Streams.Events.Name) {
		t.Errorf("an event arrived meanwhile: %v", err)
	}
	move = old.moveTo(moved, nil)
	summary, err := move.Run(t.Context())
	if err != nil || summary.Events != 2 || summary.Unfolded != 1 || summary.Files.Equal != 1 {
		t.Errorf("then: %+v, %v", summary, err)
	}

	stranger := &kgo.Record{
		Topic: moved.conf.Streams.Files.Name, Partition: kafka.Partition("w", 3),
		Key: []byte("w/other"), Value: []byte{0x58, 1},
	}
	if err := moved.client.ProduceSync(t.Context(), stranger).FirstErr(); err != nil {
		t.Fatal(err)
	}
	summary, err = move.Run(t.Context())
	if !errors.Is(err, repartition.ErrDiffer) || len(summary.Different) != 1 || summary.Different[0].Key != "w/other" {
		t.Errorf("a row that the old table has not: %+v, %v", summary, err)
	}

	moved.send(t, []happening{added("w", "e3", "h", "")})
	if _, err := move.Run(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "something else writes under the new prefix") {
		t.Errorf("an event that was not copied: %v", err)
	}
}

func TestForgottenCommitsAreNotTakenForNone(t *testing.T) {
	brokers := devbroker.ForTest(t)
	old, moved := install(t, brokers, 2, epochs.AtLeastOnce).apply(t), install(t, brokers, 3, epochs.AtLeastOnce)
	old.send(t, []happening{added("w", "e1", "f", "")})
	old.process(t)
	if _, err := kadm.NewClient(old.client).DeleteGroups(t.Context(), old.conf.Streams.FilesGroup); err != nil {
		t.Fatal(err)
	}
	move := old.moveTo(moved, nil)
	if _, err := move.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "has committed nothing") {
		t.Errorf("%v", err)
	}
}

// Someone added partitions to the events topic. Producers of other languages hash over all of them since, and nothing
// is folded.
func TestPartitionsThatWereAddedAreRead(t *testing.T) {
	brokers := devbroker.ForTest(t)
	old, moved := install(t, brokers, 4, epochs.AtLeastOnce).apply(t), install(t, brokers, 6, epochs.AtLeastOnce)
	var before, after []happening
	for n := range 20 {
		before = append(before, added(fmt.Sprint("w", n), "e1", "f", `,"size":1`))
		after = append(after, added(fmt.Sprint("w", n), "e2", "f", `,"size":2`))
	}
	old.send(t, before)
	old.process(t)
	answers, err := kadm.NewClient(old.client).UpdatePartitions(t.Context(), 7, old.conf.Streams.Events.Name)
	if err != nil || answers.Error() != nil {
		t.Fatal(err, answers.Error())
	}
	for admin, known := kadm.NewClient(old.client), 0; known != 7; { // the broker learns of them from the controller
		topics, err := admin.ListTopics(t.Context(), old.conf.Streams.Events.Name)
		if err != nil {
			t.Fatal(err)
		}
		known = len(topics[old.conf.Streams.Events.Name].Partitions)
		time.Sleep(20 * time.Millisecond)
	}
	since := *old
	since.conf.Streams.Events.Partitions = 7
	// the old client may not know them yet
	since.client, err = kafka.NewProducer(old.conf.Kafka, kgo.RecordDeliveryTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(since.client.Close)
	since.send(t, after)
	move := old.moveTo(moved, nil)
	summary, err := move.Run(t.Context())
	if err != nil || summary.Events != 40 || summary.Unfolded != 20 {
		t.Fatalf("%+v, %v", summary, err)
	}
	moved.process(t)
	for n := range 20 {
		if row := moved.row(t, fmt.Sprint("w", n), "f"); row.GetVersion() != 2 || row.GetSize() != 2 {
			t.Errorf("w%d: %v", n, row)
		}
	}
}

// Retention has taken the events of the rows, and an operator has chosen how long the rest is kept.
func TestRowsWhoseEventsAreGone(t *testing.T) {
	brokers := devbroker.ForTest(t)
	old, moved := install(t, brokers, 2, epochs.AtLeastOnce).apply(t), install(t, brokers, 3, epochs.AtLeastOnce)
	s, admin := old.conf.Streams, kadm.NewClient(old.client)
	first := added("w", "e1", "f", `,"size":1,"created":"2026-11-24T12:00:00Z"`)
	member := first
	member.value = `{"event":"added_member_to_workspace","workspace_id":"w","event_id":"m1","user_id":"u1","created":"2026-11-24T12:00:00Z"}`
	old.send(t, []happening{first, member})
	old.process(t)
	ends, err := admin.ListEndOffsets(t.Context(), s.Events.Name, s.Notify.Name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.DeleteRecords(t.Context(), ends.Offsets()); err != nil {
		t.Fatal(err)
	}
	day := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: new("86400000")}}
	if _, err := admin.AlterTopicConfigs(t.Context(), day, s.Events.Name); err != nil {
		t.Fatal(err)
	}
	for kept := time.Duration(0); kept != 24*time.Hour; { // the broker learns of it from the controller
		all, err := kafka.Retentions(t.Context(), old.conf.Kafka, s.Topics()[:1])
		if err != nil {
			t.Fatal(err)
		}
		kept = all[s.Events.Name]
		time.Sleep(20 * time.Millisecond)
	}
	move := old.moveTo(moved, nil)
	summary, err := move.Run(t.Context())
	if err != nil || summary.Events != 0 || summary.Files.Equal != 1 || summary.Workspaces.Equal != 1 {
		t.Fatalf("%+v, %v", summary, err)
	}
	if row := moved.row(t, "w", "f"); row.GetPosition() != nil || row.GetVersion() != 1 {
		t.Errorf("moved: %v", row)
	}
	kept, err := kafka.Retentions(t.Context(), old.conf.Kafka, moved.conf.Streams.Topics()[:1])
	if err != nil || kept[moved.conf.Streams.Events.Name] != 24*time.Hour {
		t.Errorf("kept for %v, %v", kept, err)
	}

	moved.send(t, []happening{first, added("w", "e2", "f", `,"size":5,"created":"2026-11-24T13:00:00Z"`)}) // the first is a resend
	moved.process(t)
	if row := moved.row(t, "w", "f"); row.GetVersion() != 2 || row.GetSize() != 5 ||
		row.GetPosition().GetOffset() != 1 {
		t.Errorf("after a resend and an update: %v", row)
	}
	counts := rows(t, moved.conf.Kafka, moved.conf.Streams.Workspaces, diff.Workspaces)["w"]
	if !strings.Contains(counts, "files:1 bytes:5 ") && !strings.Contains(counts, "files: 1 bytes: 5 ") ||
		!strings.Contains(counts, "u1") {
		t.Errorf("counts: %s", counts)
	}
}

func TestARecordThatItsProducerCompressed(t *testing.T) {
	brokers := devbroker.ForTest(t)
	old, moved := install(t, brokers, 2, epochs.AtLeastOnce).apply(t), install(t, brokers, 3, epochs.AtLeastOnce)
	foreign, err := kafka.NewProducer(old.conf.Kafka, kgo.ProducerBatchCompression(kgo.GzipCompression()),
		kgo.ProducerBatchMaxBytes(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(foreign.Close)
	large := append(bytes.Repeat([]byte(" "), 6<<20), added("w", "e1", "f", "").value...)
	record := &kgo.Record{
		Topic: old.conf.Streams.Events.Name, Partition: kafka.Partition("w", 2), Key: []byte("w"),
		Value: large,
	}
	if err := foreign.ProduceSync(t.Context(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	old.send(t, []happening{added("w", "e2", "f", "")})
	old.process(t)
	move := old.moveTo(moved, nil)
	if summary, err := move.Run(t.Context()); err != nil || summary.Events != 2 {
		t.Fatalf("%+v, %v", summary, err)
	}
	var found []int
	moved.each(t, moved.conf.Streams.Events.Name, func(r *kgo.Record) error {
		found = append(found, len(r.Value))
		return nil
	})
	if len(found) != 2 || found[0] != len(large) {
		t.Errorf("records of %v bytes, want the one of %d first", found, len(large))
	}
}

// checkPositions wants at each row's position the event that it was folded from.
func checkPositions(t *testing.T, i *installation) {
	t.Helper()
	s, checked := i.conf.Streams, 0
	spans, err := kafka.Extent(t.Context(), i.conf.Kafka, s.Files.Name)
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]string{}
	err = kafka.Read(t.Context(), i.conf.Kafka, s.Files.Name, spans, func(r *kgo.Record) error {
		row := new(tidemarkv1.FileState)
		if err := proto.Unmarshal(r.Value, row); err != nil {
			return err
		}
		at[row.GetPosition().Text()] = row.GetFileId()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if spans, err = kafka.Extent(t.Context(), i.conf.Kafka, s.Events.Name); err != nil {
		t.Fatal(err)
	}
	err = kafka.Read(t.Context(), i.conf.Kafka, s.Events.Name, spans, func(r *kgo.Record) error {
		id, named := at[(&tidemarkv1.Position{Partition: r.Partition, Offset: r.Offset}).Text()]
		if !named {
			return nil
		}
		checked++
		e, err := codecs.ParseEvent(r.Value)
		if err != nil || e.GetFileId() != id {
			return fmt.Errorf("a row of %s says that it is of %s", id, r.Value)
		}
		return nil
	})
	if err != nil || checked != len(at) {
		t.Errorf("%d of %d positions are those of events: %v", checked, len(at), err)
	}
}

// A run that was killed within a transaction is fenced: what it had on its way never becomes visible.
func TestAKilledRunIsFenced(t *testing.T) {
	brokers := devbroker.ForTest(t)
	old, moved := install(t, brokers, 2, epochs.AtLeastOnce).apply(t), install(t, brokers, 3,
		epochs.AtLeastOnce).apply(t)
	old.send(t, []happening{added("w", "e1", "f", ""), added("w", "e2", "f", "")})
	old.process(t)
	killed, err := kafka.NewProducer(old.conf.Kafka, kgo.TransactionalID(moved.conf.Streams.FilesGroup+"-repartition"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(killed.Close)
	if err := killed.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	half := &kgo.Record{
		Topic: moved.conf.Streams.Events.Name, Partition: kafka.Partition("w", 3), Key: []byte("w"),
		Value: []byte(added("w", "e1", "f", "").value),
		Headers: []kgo.RecordHeader{
			{Key: topology.HeaderCopied, Value: fmt.Appendf(nil, "%d:0", kafka.Partition("w", 2))},
		},
	}
	if err := killed.ProduceSync(t.Context(), half).FirstErr(); err != nil {
		t.Fatal(err)
	}
	move := old.moveTo(moved, nil)
	if summary, err := move.Run(t.Context()); err != nil || summary.Events != 2 {
		t.Fatalf("%+v, %v", summary, err)
	}
	if err := killed.EndTransaction(t.Context(), kgo.TryCommit); err == nil {
		t.Error("the killed run could still commit")
	}
	n := 0
	moved.each(t, moved.conf.Streams.Events.Name, func(*kgo.Record) error { n++; return nil })
	if n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}

// Copied events have their old times, so retention may take some while the copy is made. They are not copied again, to
// where they would be folded as new ones.
func TestRetentionTakesWhatWasCopied(t *testing.T) {
	brokers := devbroker.ForTest(t)
	old, moved := install(t, brokers, 2, epochs.AtLeastOnce).apply(t), install(t, brokers, 3, epochs.AtLeastOnce)
	old.send(t, []happening{added("w", "e1", "f", ""), added("w", "e2", "g", ""), added("w", "e3", "h", "")})
	old.process(t)
	move := old.moveTo(moved, func(r *kgo.Record) error {
		if r.Topic == moved.conf.Streams.Workspaces.Name {
			return errKilled
		}
		return nil
	})
	if _, err := move.Run(t.Context()); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	taken := kadm.Offsets{}
	taken.AddOffset(moved.conf.Streams.Events.Name, kafka.Partition("w", 3), 1, -1)
	if _, err := kadm.NewClient(moved.client).DeleteRecords(t.Context(), taken); err != nil {
		t.Fatal(err)
	}
	move = old.moveTo(moved, nil)
	summary, err := move.Run(t.Context())
	if err != nil || summary.Events != 2 || summary.Unfolded != 0 || summary.Files.Equal != 3 {
		t.Fatalf("%+v, %v", summary, err)
	}
	for file, offset := range map[string]int64{"f": -1, "g": 1, "h": 2} {
		if at := moved.row(t, "w", file).GetPosition(); (at == nil) != (offset < 0) ||
			at.GetOffset() != max(offset, 0) {
			t.Errorf("the row of %s is at %v, want offset %d", file, at, offset)
		}
	}
}
