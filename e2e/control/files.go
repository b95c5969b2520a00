package main

import (
	"fmt"
	"log/slog"

	"tidemark/codecs"
	"tidemark/file"
	"tidemark/topology"

	"github.com/lovoo/goka"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// files is the files group with a mistake in it.
type files struct {
	streams topology.Streams
	mistake mistake
	logID   string
	log     *slog.Logger
}

func (f *files) graph() *goka.GroupGraph {
	s := f.streams
	return goka.DefineGroup(goka.Group(s.FilesGroup),
		goka.Input(goka.Stream(s.Events.Name), codecs.Bytes{}, f.fold),
		goka.Output(goka.Stream(s.Index.Name), codecs.Index{}),
		goka.Output(goka.Stream(s.Notify.Name), codecs.Notice{}),
		goka.Output(goka.Stream(s.DLQ.Name), codecs.Bytes{}),
		goka.Persist(codecs.Proto[*tidemarkv1.FileState]{New: func() *tidemarkv1.FileState { return new(tidemarkv1.FileState) }}),
	)
}

func (f *files) fold(ctx goka.Context, message any) {
	e, err := codecs.ParseEvent(message.([]byte))
	if err != nil { // a control is only given events that can be understood
		ctx.Fail(err)
		return
	}
	e.RecordedAt = ctx.Timestamp().UnixMicro()
	if e.GetReceivedAt() == 0 {
		e.ReceivedAt = e.RecordedAt
	}
	at := &tidemarkv1.Position{Partition: ctx.Partition(), Offset: ctx.Offset()}
	if !file.Touches(e) {
		ctx.Emit(goka.Stream(f.streams.Notify.Name), ctx.Key(), file.NoticeOf(nil, nil, e, at, false))
		return
	}
	before, _ := ctx.Value().(*tidemarkv1.FileState)
	after, late, verdict := file.Apply(before, e, at, f.logID)
	if verdict == file.Applied && f.mistake.redo {
		after, verdict = before, file.Accepted
	}
	switch verdict {
	case file.BeyondWindow:
		f.deadLetter(ctx, message.([]byte))
		return
	case file.Applied, file.Duplicate:
		return
	case file.Unchanged:
		ctx.Emit(goka.Stream(f.streams.Notify.Name), ctx.Key(), file.NoticeOf(nil, nil, e, at, false))
		ctx.SetValue(after)
		return
	case file.Accepted:
	}
	if !isFolder(after) || before != nil && !isFolder(before) {
		ctx.Emit(goka.Stream(f.streams.Index.Name), ctx.Key(), file.IndexOf(after))
	}
	ctx.Emit(goka.Stream(f.streams.Notify.Name), ctx.Key(), file.NoticeOf(before, after, e, at, late))
	ctx.SetValue(after)
}

func isFolder(s *tidemarkv1.FileState) bool { return s.GetKind() == tidemarkv1.Kind_KIND_FOLDER }

// deadLetter says only that the event is beyond the window: no other dead letter comes to a control. The key that the group
// was given is the file's; the source's was the workspace.
func (f *files) deadLetter(ctx goka.Context, value []byte) {
	workspace, _, err := tidemarkv1.SplitKey(ctx.Key())
	if err != nil {
		ctx.Fail(err)
		return
	}
	ctx.Emit(goka.Stream(f.streams.DLQ.Name), workspace, value, goka.WithCtxEmitHeaders(goka.Headers{
		"dlq.exception": []byte("control"), "dlq.message": []byte("beyond the window"), "dlq.reason": []byte("beyond_dedupe_window"),
		"dlq.topic": []byte(ctx.Topic()), "dlq.partition": fmt.Append(nil, ctx.Partition()), "dlq.offset": fmt.Append(nil, ctx.Offset()),
		"dlq.first_failed_at": fmt.Append(nil, ctx.Timestamp()),
	}))
}
