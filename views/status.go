package views

import (
	"encoding/json"
	"strconv"
	"time"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A statusReport is the answer of /v1/status.
type statusReport struct {
	Ready        bool              `json:"ready"`
	Reason       string            `json:"reason,omitempty"` // why not
	Partitions   []partitionStatus `json:"partitions"`
	Duplicates   *int64            `json:"duplicates,omitempty"`    // known only beside the files processor
	DeadLettered *int64            `json:"dead_lettered,omitempty"` // open ones; absent until they were counted
}

// A partitionStatus shows the copy that is further behind.
type partitionStatus struct {
	Partition  int32   `json:"partition"`
	Position   string  `json:"position,omitempty"` // of the last event in the copy; absent while there is none
	LagRecords int64   `json:"lag_records"`
	LagSeconds float64 `json:"lag_seconds"`
	Ready      bool    `json:"ready"`
}

// getStatus also answers while the copies are incomplete or too old, since that is when it is needed.
func (s *Server) getStatus(c *call) (*answer, error) {
	return s.gather(c, func() ([]byte, error) {
		both := []*coverage{&s.files.coverage, &s.workspaces.coverage}
		if err := s.await(c.request.Context(), c, both, "", nil); err != nil {
			return nil, err
		}
		report := s.report(c.held.numbers, time.Now())
		c.lagKnown = true
		for _, p := range report.Partitions {
			c.lag = max(c.lag, time.Duration(p.LagSeconds*float64(time.Second)))
		}
		return json.Marshal(report)
	}, func(parts []part) ([]byte, error) {
		report, err := s.mergeStatus(parts)
		if err != nil {
			return nil, err
		}
		return json.Marshal(report)
	})
}

func (s *Server) report(partitions []int32, now time.Time) statusReport {
	report := statusReport{Partitions: make([]partitionStatus, len(partitions))}
	for i, partition := range partitions {
		report.Partitions[i] = s.partitionStatus(partition, now)
	}
	if err := s.Ready(); err != nil {
		report.Reason = err.Error()
	} else {
		report.Ready = true
	}
	if s.conf.Duplicates != nil {
		n := s.conf.Duplicates()
		report.Duplicates = &n
	}
	if s.conf.DeadLettered != nil {
		if n, ok := s.conf.DeadLettered(); ok {
			report.DeadLettered = &n
		}
	}
	return report
}

func (s *Server) partitionStatus(partition int32, now time.Time) partitionStatus {
	status := partitionStatus{Partition: partition, Ready: true}
	for i, t := range []*table{s.files, s.workspaces} {
		l, known := s.progress.lag(&t.coverage, partition, now)
		position := ""
		if l.nextEvent > 0 {
			position = (&tidemarkv1.Position{Partition: partition, Offset: l.nextEvent - 1}).Text()
		}
		if i == 0 || l.records >= status.LagRecords {
			status.Position, status.LagRecords = position, l.records
		}
		status.LagSeconds = max(status.LagSeconds, float64(l.age.Milliseconds())/1000)
		status.Ready = status.Ready && known && t.completePartition(partition)
	}
	return status
}

// seconds formats a duration for clients: seconds, to the millisecond.
func seconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Milliseconds())/1000, 'f', -1, 64)
}

// lagFor returns the age of the data that the call is answered from: that of its workspace's partition, or without a
// workspace the greatest of all partitions that are held.
func (s *Server) lagFor(c *call) (age time.Duration, known bool) {
	now := time.Now()
	if c.workspace != "" {
		if !s.held.holds(s.partition(c.workspace)) {
			return 0, false
		}
		l, known := s.progress.lag(c.coverage, s.partition(c.workspace), now)
		return l.age, known
	}
	for _, partition := range s.held.partitions() {
		l, ok := s.progress.lag(c.coverage, partition, now)
		age, known = max(age, l.age), known || ok
	}
	return age, known
}
