package repartition

import "github.com/twmb/franz-go/pkg/kgo"

// Before calls hook before a record is written. Its error ends the run.
func (m *Move) Before(hook func(*kgo.Record) error) { m.hook = hook }
