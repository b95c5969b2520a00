package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/minio/minio-go/v7"

	"tidemark/sinks"
)

// A destination that is starting is checked again. An error of the settings ends the sink at once.
func TestCheckDestination(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		checks int
	}{
		"refused":     {fmt.Errorf("check: %w", &net.OpError{Op: "dial", Err: errors.New("refused")}), 2},
		"cut":         {fmt.Errorf("check: %w", io.ErrUnexpectedEOF), 2},
		"503":         {fmt.Errorf("check: %w", &sinks.Later{Err: errors.New("503")}), 2},
		"503 of S3":   {fmt.Errorf("check: %w", minio.ErrorResponse{StatusCode: 503}), 2},
		"403 of S3":   {fmt.Errorf("check: %w", minio.ErrorResponse{StatusCode: 403}), 1},
		"no password": {errors.New("401"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checks := 0
			err := checkDestination(t.Context(), func(context.Context) error {
				if checks++; checks == 1 {
					return test.err
				}
				return nil
			}, func(error) {})
			if checks != test.checks || (err == nil) != (test.checks == 2) {
				t.Errorf("%d checks, %v", checks, err)
			}
		})
	}
}
