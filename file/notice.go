package file

import tidemarkv1 "tidemark/proto/tidemark/v1"

// IndexOf returns what a search index must hold after an event: the document of an active file, and nothing of one that is in
// the trash or erased.
func IndexOf(after *tidemarkv1.FileState) *tidemarkv1.IndexOp {
	op := &tidemarkv1.IndexOp{
		Op:          tidemarkv1.IndexOp_OP_DELETE,
		Id:          tidemarkv1.JoinKey(after.GetWorkspaceId(), after.GetFileId()),
		WorkspaceId: after.GetWorkspaceId(),
		FileId:      after.GetFileId(),
		Version:     after.GetVersion(),
		Position:    after.GetPosition(),
	}
	if after.GetStatus() == tidemarkv1.Status_STATUS_ACTIVE {
		op.Op, op.File = tidemarkv1.IndexOp_OP_UPSERT, after
	}
	return op
}

// NoticeOf tells what an event did. Without a row, after is nil, and the notice has no version, before or after.
func NoticeOf(before, after *tidemarkv1.FileState, e *tidemarkv1.Event, at *tidemarkv1.Position, late bool) *tidemarkv1.Notice {
	n := &tidemarkv1.Notice{
		OpId:        tidemarkv1.JoinKey(e.GetWorkspaceId(), e.GetEventId()),
		Event:       e.GetEvent(),
		EventId:     e.GetEventId(),
		WorkspaceId: e.GetWorkspaceId(),
		FileId:      e.GetFileId(),
		Position:    at,
		Late:        late,
		ActorId:     e.GetActorId(),
		At:          happened(e),
		Before:      before,
		After:       after,
		Payload:     e.GetPayload(),
		Member:      memberOf(e),
		Unreadable:  e.GetUnreadable(),
	}
	if after != nil {
		version := after.GetVersion()
		n.Version = &version
	}
	return n
}
