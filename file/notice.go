package file

import tidemarkv1 "tidemark/proto/tidemark/v1"

// IndexOf returns the index record of a row: an upsert for an active file, a delete for one that is in the trash or
// erased, and for a folder.
func IndexOf(after *tidemarkv1.FileState) *tidemarkv1.IndexOp {
	op := &tidemarkv1.IndexOp{
		Op:          tidemarkv1.IndexOp_OP_DELETE,
		Id:          tidemarkv1.JoinKey(after.GetWorkspaceId(), after.GetFileId()),
		WorkspaceId: after.GetWorkspaceId(),
		FileId:      after.GetFileId(),
		Version:     after.GetVersion(),
		Position:    after.GetPosition(),
	}
	if after.GetStatus() == tidemarkv1.Status_STATUS_ACTIVE && after.GetKind() != tidemarkv1.Kind_KIND_FOLDER {
		op.Op, op.File = tidemarkv1.IndexOp_OP_UPSERT, after
	}
	return op
}

// NoticeOf returns the notice of an event. If the event has no row, after is nil, and the notice has no version, before
// or after.
func NoticeOf(before, after *tidemarkv1.FileState, e *tidemarkv1.Event, at *tidemarkv1.Position,
	late bool,
) *tidemarkv1.Notice {
	n := &tidemarkv1.Notice{
		OpId:        opID(e),
		Event:       e.GetEvent(),
		EventId:     e.GetEventId(),
		WorkspaceId: e.GetWorkspaceId(),
		FileId:      e.GetFileId(),
		Position:    at,
		Late:        late,
		ActorId:     e.GetActorId(),
		At:          displayTime(e),
		Before:      before,
		After:       after,
		Payload:     e.GetPayload(),
		Member:      memberOf(e),
		Unreadable:  e.GetUnreadable(),
		Cause:       e.GetCause(),
	}
	if after != nil {
		version := after.GetVersion()
		n.Version = &version
	}
	return n
}

// opID is the same for each attempt at an event, and unique: several files may have an event with the same id.
func opID(e *tidemarkv1.Event) string {
	id := tidemarkv1.JoinKey(e.GetWorkspaceId(), e.GetEventId())
	if e.GetFileId() != "" {
		id += "/" + tidemarkv1.EscapePart(e.GetFileId())
	}
	return id
}
