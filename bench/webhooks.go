package main

import (
	"context"
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
	s.reps, s.seconds = 1, int(u.phase().Seconds())
	for rep := range u.reps {
		run, ok, err := counted(ctx, u, "ingest", rep+1, func() (t ingressTrial, err error) {
			o, err := observe(u.brokerPID)
			if err != nil {
				return t, err
			}
			if t.Figures, err = ingress(ctx, s); err != nil {
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

// webhooks are the values of a figure.
func (r *comparison) webhooks(figure string) spread {
	var values []float64
	for _, x := range r.Ingress {
		switch v := x.Figures[figure].(type) {
		case float64:
			values = append(values, v)
		case int:
			values = append(values, float64(v))
		}
	}
	return spreadOf(values, all, func(v float64) float64 { return v })
}

func webhookCost(r *comparison) section {
	t := table{header: []string{
		"", "thousand/s", "CPU, µs each", "p99, ms", "p99 at half of that rate, ms",
	}}
	t.rows = [][]string{
		{
			"`ingest`", r.webhooks("per_s").text(1000), r.webhooks("cpu_us_each").text(1), r.webhooks("p99_ms").text(1),
			r.webhooks("p99_ms_at_half").text(1),
		},
		{
			"the same server without Kafka", r.webhooks("none_per_s").text(1000),
			r.webhooks("none_cpu_us_each").text(1), "", "",
		},
	}
	return section{title: "Webhooks", tables: []table{t}, text: fmt.Sprintf("Signed webhooks over keep-alive "+
		"connections, each of which sends the next one when one is answered. The server without Kafka acknowledges at "+
		"once. The ratio of their rates is %s.", r.webhooks("rate_over_none").text(1))}
}
