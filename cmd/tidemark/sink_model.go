package main

import (
	"context"
	"time"

	"tidemark/doctor"
	"tidemark/kafka"
	"tidemark/sinks"
	"tidemark/sinks/model"
	"tidemark/topology"
)

// modelFlags are the settings of the model sink.
type modelFlags struct {
	ModelRules string `help:"File of rules: which files which models are asked about." placeholder:"FILE" group:"Model"`
}

// services returns a service for each rule: a rule has a consumer group of its own.
func (f modelFlags) services(h *host, instance string) (services []service, err error) {
	rules, err := model.Load(f.ModelRules)
	if err != nil {
		return nil, err
	}
	producer, err := kafka.NewProducer(h.kafka)
	if err != nil {
		return nil, err
	}
	for _, rule := range rules {
		name := topology.SinkModel + "-" + rule.Name
		sink := model.New(model.Config{Rule: rule, Topic: h.streams.Predictions, Producer: producer})
		config := h.sinkConfig(name, instance, h.streams.Index)
		config.BatchRecords, config.BufferBytes = rule.Batch*rule.MaxInFlight, modelBuffer
		config.Attempt = 2*rule.Deadline + 10*time.Second
		loop, err := sinks.NewLoop(config, sink)
		if err != nil {
			return nil, err
		}
		services = append(services, h.sink(name, loop, sink.Check))
	}
	rulesOf := together("sink model", services...)
	return []service{{name: rulesOf.name, run: func(ctx context.Context) error {
		defer producer.Close()
		return rulesOf.run(ctx)
	}}}, nil
}

const modelBuffer = 128 << 10 // of each partition of each rule

// destinations returns the doctor's checks of the models.
func (f modelFlags) destinations() (all []doctor.Destination, err error) {
	rules, err := model.Load(f.ModelRules)
	if err != nil {
		return nil, err
	}
	for _, rule := range rules {
		sink := model.New(model.Config{Rule: rule})
		all = append(all, doctor.Destination{Name: topology.SinkModel + "-" + rule.Name, Check: sink.Check})
	}
	return all, nil
}
