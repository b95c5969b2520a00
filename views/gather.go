package views

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// headerPartitions lists the partitions that the answer to a request about all workspaces is from, if it was passed on
// by another instance.
const headerPartitions = "Tidemark-Partitions"

// maxPartBytes is the longest answer of another instance that is read.
const maxPartBytes = 64 << 20

// heldPartitions are the partitions that were held when a call began, with their terms.
type heldPartitions struct {
	numbers []int32
	terms   []context.Context
}

// hold notes the partitions that a call about all workspaces is answered from.
func (s *Server) hold(c *call) {
	c.held = &heldPartitions{}
	for _, p := range s.held.partitions() {
		if term := s.held.term(p); term != nil {
			c.held.numbers = append(c.held.numbers, p)
			c.held.terms = append(c.held.terms, term)
		}
	}
}

// kept reports whether all of the call's partitions were held until now.
func (s *Server) kept(c *call) bool {
	for i, p := range c.held.numbers {
		if s.held.term(p) != c.held.terms[i] {
			return false
		}
	}
	return true
}

// A part is what one instance answers to a request about all workspaces.
type part struct {
	body       []byte
	partitions []int32
	lag        time.Duration
}

// gather answers a request about all workspaces: own answers for the partitions that are held here, and merge joins
// that with the answers of the other instances. Those do not ask further instances.
func (s *Server) gather(c *call, own func() ([]byte, error), merge func([]part) ([]byte, error)) (*answer, error) {
	s.hold(c)
	if s.members == nil {
		body, err := own()
		return &answer{body: body}, err
	}
	others := make(chan []part, 1)
	if !c.forwarded {
		go func() { others <- s.askOthers(c) }()
	}
	body, err := own()
	switch {
	case err != nil:
		return nil, err
	case !s.kept(c):
		return nil, notOwner()
	case c.forwarded:
		return &answer{body: body, partitions: c.held.numbers}, nil
	}
	parts := append([]part{{body: body, partitions: c.held.numbers}}, <-others...)
	for _, p := range parts {
		c.lag = max(c.lag, p.lag)
	}
	body, err = merge(parts)
	return &answer{body: body}, err
}

// askOthers passes a request on to all other instances, and returns the answers of those that answered.
func (s *Server) askOthers(c *call) []part {
	limit := forwardTimeout
	if c.barrier.position != nil {
		limit += c.barrier.wait
	}
	ctx, cancel := context.WithTimeout(c.request.Context(), limit)
	defer cancel()
	owners := s.members.others()
	parts := make([]part, len(owners))
	var all sync.WaitGroup
	for i, owner := range owners {
		all.Go(func() {
			var err error
			if parts[i], err = s.ask(ctx, c, owner); err != nil {
				s.members.refresh()
				s.conf.Log.DebugContext(ctx, "an instance does not answer", "owner", owner, "error", err)
			}
		})
	}
	all.Wait()
	return slices.DeleteFunc(parts, func(p part) bool { return p.body == nil })
}

// ask passes a request on to one instance.
func (s *Server) ask(ctx context.Context, c *call, owner string) (p part, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, owner+c.request.URL.RequestURI(), nil)
	if err != nil {
		return p, err
	}
	request.Host = s.hostFor(c.request.Host)
	for _, name := range []string{"Authorization", "Cookie"} {
		request.Header[name] = c.request.Header[name]
	}
	request.Header.Set(headerForwarded, "1")
	response, err := s.members.transport.RoundTrip(request)
	if err != nil {
		return p, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return p, errors.New(response.Status)
	}
	for number := range strings.SplitSeq(response.Header.Get(headerPartitions), ",") {
		n, err := strconv.Atoi(number)
		if number != "" && (err != nil || n < 0 || n >= s.conf.Streams.Events.Partitions) {
			return p, fmt.Errorf("its header %s is %q", headerPartitions, response.Header.Get(headerPartitions))
		}
		if number != "" {
			p.partitions = append(p.partitions, int32(n))
		}
	}
	age, err := strconv.ParseFloat(response.Header.Get(headerLag), 64)
	if err != nil && p.partitions != nil {
		return p, errors.New("it does not know the age of its answer yet")
	}
	p.lag = time.Duration(age * float64(time.Second))
	p.body, err = io.ReadAll(io.LimitReader(response.Body, maxPartBytes))
	return p, err
}

// missing returns the partitions that no part is from.
func (s *Server) missing(parts []part) (partitions []int32) {
	covered := map[int32]bool{}
	for _, p := range parts {
		for _, n := range p.partitions {
			covered[n] = true
		}
	}
	for n := range int32(s.conf.Streams.Events.Partitions) {
		if !covered[n] {
			partitions = append(partitions, n)
		}
	}
	return partitions
}

// mergeWorkspaces returns the first limit workspaces of all parts, which are the first ones of their partitions.
func (s *Server) mergeWorkspaces(parts []part, limit int) ([]byte, error) {
	if len(s.missing(parts)) > 0 {
		return nil, ownerUnavailable()
	}
	type row struct {
		key  string
		json json.RawMessage
	}
	var rows []row
	more := false
	for _, p := range parts {
		var page struct {
			Workspaces []json.RawMessage `json:"workspaces"`
			NextCursor *string           `json:"next_cursor"`
		}
		if err := json.Unmarshal(p.body, &page); err != nil {
			return nil, err
		}
		more = more || page.NextCursor != nil
		for _, w := range page.Workspaces {
			var id struct {
				WorkspaceID string `json:"workspace_id"`
			}
			if err := json.Unmarshal(w, &id); err != nil {
				return nil, err
			}
			rows = append(rows, row{tidemarkv1.JoinKey(id.WorkspaceID, ""), w})
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.key, b.key) })
	rows = slices.CompactFunc(rows, func(a, b row) bool { return a.key == b.key }) // the partition was just moved
	more = more || len(rows) > limit
	rows = rows[:min(len(rows), limit)]
	body, cursor := []byte(`{"workspaces":[`), "null"
	for i, r := range rows {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, r.json...)
	}
	if more && len(rows) > 0 {
		cursor = `"` + encodeWorkspace(rows[len(rows)-1].key) + `"`
	}
	return append(append(append(body, `],"next_cursor":`...), cursor...), '}'), nil
}

// mergeStatus joins the reports of all instances. A partition without a report is not ready.
func (s *Server) mergeStatus(parts []part) (merged statusReport, err error) {
	merged.Ready = true
	merged.Partitions = make([]partitionStatus, s.conf.Streams.Events.Partitions)
	for i, p := range parts {
		var report statusReport
		if err := json.Unmarshal(p.body, &report); err != nil {
			return merged, err
		}
		if i == 0 { // of this instance
			merged.Duplicates, merged.DeadLettered = report.Duplicates, report.DeadLettered
		}
		merged.Ready = merged.Ready && report.Ready
		merged.Reason = cmp.Or(merged.Reason, report.Reason)
		for _, status := range report.Partitions {
			if slices.Contains(p.partitions, status.Partition) {
				merged.Partitions[status.Partition] = status
			}
		}
	}
	for _, partition := range s.missing(parts) {
		merged.Partitions[partition] = partitionStatus{Partition: partition}
		merged.Ready = false
		merged.Reason = cmp.Or(merged.Reason, fmt.Sprintf("partition %d: no instance that holds it answers", partition))
	}
	for i, status := range merged.Partitions {
		merged.Partitions[i].Partition = int32(i)
		merged.Ready = merged.Ready && status.Ready
	}
	return merged, nil
}
