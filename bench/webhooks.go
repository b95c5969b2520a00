package main

import (
	"context"
	"encoding/json"
	"fmt"
)

// An ingressTrial has the figures of ingress, which measures the ingress and the same server without Kafka.
type ingressTrial struct {
	Repetition int    `json:"repetition"`
	Figures    result `json:"figures"`
	span
}

// ingress measures the ingress beside the same server without Kafka.
func (u *suite) ingress(ctx context.Context) error {
	s := u.setup
	s.reps, s.seconds = 1, max(1, int(u.phase().Seconds()*2/3))
	for rep := range u.reps {
		run, ok, err := counted(ctx, u, "ingest", rep+1, func() (t ingressTrial, err error) {
			o, err := observe(u.brokerPID)
			if err != nil {
				return t, err
			}
			figures, err := ingress(ctx, s)
			if err != nil {
				return t, err
			}
			if t.Figures, err = flat(figures); err != nil {
				return t, err
			}
			t.span, err = o.end()
			return t, err
		})
		if err != nil {
			return err
		}
		if ok {
			run.Repetition = rep + 1
			u.report.Ingress = append(u.report.Ingress, run)
			say("ingest: %v", run.Figures)
		}
	}
	return nil
}

// flat is a result as it is read from JSON, with the members of its objects as "object.member".
func flat(r result) (result, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	read := result{}
	if err := json.Unmarshal(text, &read); err != nil {
		return nil, err
	}
	for name, value := range read {
		if object, ok := value.(map[string]any); ok {
			delete(read, name)
			for member, v := range object {
				read[name+"."+member] = v
			}
		}
	}
	return read, nil
}

// webhooks are the values of a figure.
func (r *comparison) webhooks(figure string) spread {
	return spreadOf(r.Ingress, func(x ingressTrial) bool {
		_, measured := x.Figures[figure].(float64)
		return measured
	}, func(x ingressTrial) float64 { return x.Figures[figure].(float64) })
}

func webhookCost(r *comparison) section {
	t := table{header: []string{
		"", "thousand/s", "CPU, µs each", "CPU at half of the first rate", "p99, ms", "p99 at half of the first rate",
	}}
	t.rows = [][]string{
		{
			"`ingest`", r.webhooks("per_s").text(1000), r.webhooks("cpu_us_each").text(1),
			r.webhooks("half_cpu_us_each").text(1), r.webhooks("p99_ms").text(1), r.webhooks("half_p99_ms").text(1),
		},
		{
			"the same server without Kafka", r.webhooks("without_kafka.per_s").text(1000),
			r.webhooks("without_kafka.cpu_us_each").text(1),
			r.webhooks("without_kafka.half_cpu_us_each").text(1), "", "",
		},
	}
	return section{title: "Webhooks", tables: []table{t}, text: fmt.Sprintf("Signed webhooks over keep-alive "+
		"connections, each of which sends the next one when one is answered; then half of the rate of `ingest`, to both. "+
		"The server without Kafka acknowledges at once. The ratio of the rates is %s.",
		r.webhooks("rate_ratio").text(1))}
}
