package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"
)

// judge waits until the groups have drained, ends the roles, and compares all topics, and then the query API, with
// the model.
func (r *run) judge(ctx context.Context, product bool, to *oracle.Report) error {
	took, err := rig.Drain(ctx, r.client, r.prefix, 180*time.Second, product)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, r.process[0].Tail())
	}
	to.Fact("drained after the last event, s", fmt.Sprintf("%.1f", took.Seconds()))
	leave := func(roles ...*rig.Program) {
		for _, p := range roles {
			if _, err := p.Term(drainLimit); err != nil && product { // also when it had ended by itself
				to.Violate("roles that do not drain after SIGTERM", "%v", err)
			}
		}
	}
	leave(slices.Concat(r.ingress, r.process)...)
	logf("drained")
	if r.followed != nil {
		to.Check("files table not followed to its end")
		if err := r.followed.Finish(ctx, 120*time.Second); err != nil {
			to.Violate("files table not followed to its end", "%v", err)
			r.followed = nil
		}
	}
	begin := time.Now()
	model, err := oracle.Judge{
		Brokers: r.plain, Topics: r.topics, Partitions: partitions, Workspaces: product, Once: r.once,
		Sent:     &oracle.Sent{History: r.traffic.history, Notes: r.traffic.notes, Foreign: r.foreign.Written},
		Followed: r.followed,
	}.Run(ctx, to)
	logf("the topics are judged, in %.0f s", time.Since(begin).Seconds())
	if err != nil || !product {
		return err
	}
	err = rig.JudgeView(ctx, r.serve, model, 180*time.Second, to)
	leave(r.serve)
	logf("the query API is judged, in %.0f s with the topics", time.Since(begin).Seconds())
	return err
}
