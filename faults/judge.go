package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"tidemark/e2e/oracle"
)

// judge waits until everything has drained, ends the roles and compares all topics, and then the query API, with the model.
func (r *run) judge(ctx context.Context, product bool, to *oracle.Report) error {
	took, err := r.drain(ctx, 180*time.Second, product)
	if err != nil {
		return err
	}
	to.Fact("drained after the last event, s", fmt.Sprintf("%.1f", took.Seconds()))
	leave := func(roles ...*program) {
		for _, p := range roles {
			if _, err := p.term(); err != nil && product { // one that ended by itself has not left when told either
				to.Violate("roles that do not leave when told", "%s: %v\n%s", p.name, err, p.tail())
			}
		}
	}
	leave(slices.Concat(r.ingress, r.process)...)
	say("drained")
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
		Sent:     &oracle.Sent{History: r.traffic.history, Notes: r.traffic.notes, Foreign: r.foreign.written},
		Followed: r.followed,
	}.Run(ctx, to)
	say("the topics are judged, in %.0f s", time.Since(begin).Seconds())
	if err != nil || !product {
		return err
	}
	err = r.judgeView(ctx, model, to)
	leave(r.serve)
	say("the query API is judged, in %.0f s with the topics", time.Since(begin).Seconds())
	return err
}

// drain waits until the groups have committed all there is to read.
func (r *run) drain(ctx context.Context, limit time.Duration, product bool) (time.Duration, error) {
	begin := time.Now()
	for {
		files, err := r.lag(ctx, r.prefix+"-files", r.topics.Events)
		var spaces int64
		if product && err == nil {
			spaces, err = r.lag(ctx, r.prefix+"-workspaces", r.topics.Notify)
		}
		if err == nil && files+spaces == 0 {
			return time.Since(begin), nil
		}
		if time.Since(begin) > limit {
			return 0, errors.Join(err, fmt.Errorf("not drained after %v: %d events and %d notices are not committed\n%s", limit, files, spaces, r.process[0].tail()))
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// judgeView compares the query API with the model, then again after it has lost its disk.
func (r *run) judgeView(ctx context.Context, model *oracle.Model, to *oracle.Report) error {
	client := &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	for _, when := range []string{"caught up", "wiped, caught up"} {
		took, err := r.viewCaughtUp(ctx, 180*time.Second)
		if err != nil {
			return err
		}
		to.Fact("view: "+when+" after, s", fmt.Sprintf("%.1f", took.Seconds()))
		if err := model.JudgeAPI(ctx, client, r.serve.url, to); err != nil {
			return fmt.Errorf("%w\n%s", err, r.serve.tail())
		}
		if when == "caught up" {
			data := r.serve.args[indexOf(r.serve.args, "--data")+1]
			if err := errors.Join(r.serve.kill(), wipe(data), r.serve.start()); err != nil {
				return err
			}
		}
	}
	return nil
}

func indexOf(args []string, flag string) int {
	for i, a := range args {
		if a == flag {
			return i
		}
	}
	return -1
}

func (r *run) viewCaughtUp(ctx context.Context, limit time.Duration) (time.Duration, error) {
	begin, last := time.Now(), ""
	for time.Since(begin) < limit {
		resp, err := http.Get(r.serve.url + "/v1/status")
		if err == nil {
			var status struct {
				Ready      bool
				Partitions []struct {
					LagRecords int64 `json:"lag_records"`
				}
			}
			err = errors.Join(json.NewDecoder(resp.Body).Decode(&status), resp.Body.Close())
			lag := int64(0)
			for _, p := range status.Partitions {
				lag += p.LagRecords
			}
			if err == nil && status.Ready && lag == 0 {
				return time.Since(begin), nil
			}
			last = fmt.Sprintf("%s ready %t lag %d", resp.Status, status.Ready, lag)
		}
		if err != nil {
			last = err.Error()
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("the view does not catch up within %v: %s\n%s", limit, last, r.serve.tail())
}
