package deadletters

import (
	"net/http"
	"net/url"

	"github.com/gorilla/mux"
)

// A jobRequest is the body of a POST of a job.
type jobRequest struct {
	Action string `json:"action"`
	request
}

func (h *Handler) startJob(r *http.Request, prefix string) (any, error) {
	var q jobRequest
	if err := read(r, &q); err != nil {
		return nil, err
	}
	if q.Action != actionReplay && q.Action != actionDrop {
		return nil, bad("action", "action %q: want %s or %s", q.Action, actionReplay, actionDrop)
	}
	filter, options, err := q.selection(q.Action, h.queue.Events())
	if err != nil {
		return nil, err
	}
	started, err := h.jobs.start(&q, filter, options)
	if err != nil {
		return nil, err // not started: a job without an id would be encoded as a result
	}
	return &reply{status: http.StatusAccepted, location: prefix + "/jobs/" + started.ID, body: started}, nil
}

func (h *Handler) listJobs(r *http.Request) (any, error) {
	if r.URL.RawQuery != "" {
		return nil, bad("", "there are no parameters here: leave them out")
	}
	return map[string]any{"jobs": h.jobs.summaries()}, nil
}

func (h *Handler) showJob(r *http.Request) (any, error) {
	found, err := h.jobs.get(jobID(r))
	if err != nil {
		return nil, err
	}
	return found, nil
}

func (h *Handler) cancelJob(r *http.Request) (any, error) {
	if err := h.jobs.stop(jobID(r)); err != nil {
		return nil, err
	}
	return &reply{status: http.StatusNoContent}, nil
}

// jobID returns the id in the path. One with a broken escape is that of no job.
func jobID(r *http.Request) string {
	id, err := url.PathUnescape(mux.Vars(r)["job"])
	if err != nil {
		return ""
	}
	return id
}
