package main

import (
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
	if verdict != file.Accepted {
		return
	}
	ctx.Emit(goka.Stream(f.streams.Index.Name), ctx.Key(), file.IndexOf(after))
	ctx.Emit(goka.Stream(f.streams.Notify.Name), ctx.Key(), file.NoticeOf(before, after, e, at, late))
	ctx.SetValue(after)
}
