package sinks_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"tidemark/sinks"
)

// A poster is a sink in one file: it posts each record to a URL. docs/new-sink.md goes through it.
type poster struct {
	url    string
	client http.Client
}

// Deliver posts records in their order, so it stops at the first that is to come again.
func (p *poster) Deliver(ctx context.Context, batch []*sinks.Record) error {
	partial := &sinks.Partial{Rejected: map[*sinks.Record]*sinks.Rejected{}}
	for i, r := range batch {
		err := p.post(ctx, r)
		if rejected, ok := errors.AsType[*sinks.Rejected](err); ok {
			partial.Rejected[r] = rejected
		} else if err != nil {
			partial.Again, partial.Err = batch[i:], err
			break
		}
	}
	return partial
}

func (p *poster) post(ctx context.Context, r *sinks.Record) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(r.Value))
	if err != nil {
		return err
	}
	request.Header.Set("Idempotency-Key", r.Position()) // a record may come again, with the same position
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10)) // a text for people, which may be cut
	switch code := response.StatusCode; {
	case code/100 == 2:
		return nil
	case code == http.StatusBadRequest, code == http.StatusUnprocessableEntity:
		return &sinks.Rejected{Reason: "correct the file's fields", Answer: response.Status + ": " + string(answer)}
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable:
		if pause := sinks.RetryAfter(response.Header, time.Hour); pause > 0 {
			return &sinks.Later{Pause: pause, Err: fmt.Errorf("answered %s", answer)}
		}
	}
	return fmt.Errorf("answered %s: %s", response.Status, answer)
}
