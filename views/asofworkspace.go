package views

import (
	"fmt"
	"net/http"
	"time"

	"tidemark/codecs"
	rules "tidemark/file"
	"tidemark/history"
	"tidemark/problem"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// maxPastNotices is how many notices are subtracted to answer the counts of a workspace at an earlier position: some
// seconds of one core.
const maxPastNotices = 1_000_000

// maxScans is how many answers that read a whole workspace, or that many notices, are made at the same time.
const maxScans = 4

// takeScan begins one of maxScans; release ends it.
func (s *Server) takeScan() (release func(), err error) {
	select {
	case s.scans <- struct{}{}:
		return func() { <-s.scans }, nil
	default:
		detail := fmt.Sprintf("%d answers that read whole workspaces are being made, which is the most at a time: "+
			"try again", maxScans)
		return nil, problem.New(http.StatusServiceUnavailable, codeTooManyScans, detail).Retry(5 * time.Second)
	}
}

// getWorkspaceAsOf answers the counts of a workspace at an earlier position: those of the row, less all that it has
// counted since. Members are not answered: a notice does not have what a member was before.
func (s *Server) getWorkspaceAsOf(c *call) (*answer, error) {
	offset, err := s.parseAsOf(c)
	if err != nil {
		return nil, err
	}
	if err := s.begin(c, "", nil); err != nil {
		return nil, err
	}
	var row tidemarkv1.WorkspaceState
	found, err := s.row(s.workspaces, c.workspace, "", &row)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, unknownWorkspace()
	}
	var past *rules.Past
	if err := s.readHistory(c, offset, func(h *history.Snapshot) (missing string, err error) {
		past = rules.NewPast(&row)
		if row.GetLogId() != h.LogID() { // it has counted nothing of this log
			return "", nil
		}
		release, err := s.takeScan()
		if err != nil {
			return "", err
		}
		defer release()
		n, read, ctx := 0, 0, c.request.Context()
		last := row.GetPosition().GetOffset()
		err = h.Counted(c.workspace, offset, last, func(at int64, notice *tidemarkv1.Notice) error {
			if read++; read%1000 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			if !past.Counted(at) {
				return nil
			}
			if n++; n > maxPastNotices {
				return problem.New(http.StatusBadRequest, codeAsOfTooFar, fmt.Sprintf("the workspace has changed more "+
					"than %d times since: ask about a later position, or count a listing", maxPastNotices)).On("as_of")
			}
			past.Undo(notice)
			return nil
		})
		if n < past.Remembered(offset) {
			missing = "/"
		}
		return missing, err
	}); err != nil {
		return nil, err
	}
	counts := past.Counts()
	if counts == nil {
		return nil, problem.New(http.StatusNotFound, codeUnknownWorkspace,
			"no event of this workspace was seen up to that position")
	}
	return &answer{body: codecs.AppendPastWorkspace(nil, counts)}, nil
}
