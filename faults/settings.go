package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tidemark/e2e/rig"
)

// refuseDLQ revokes the processors' right to write dead letters, sends poison, and grants it again.
func refuseDLQ(ctx context.Context, r *run) (figures, error) {
	deleted, err := r.admin.DeleteACLs(ctx, r.dlqACL)
	for _, d := range deleted {
		err = errors.Join(err, d.Err)
	}
	if err != nil {
		return nil, err
	}
	restore := func() error {
		made, err := r.admin.CreateACLs(ctx, r.dlqACL)
		for _, m := range made {
			err = errors.Join(err, m.Err)
		}
		return err
	}
	poison := 0
	for i := range 12 {
		if err := r.foreign.Write(i % rig.Poison); err != nil {
			return nil, errors.Join(err, restore())
		}
		poison++
	}
	if err := errors.Join(rig.Sleep(ctx, r.between(6*time.Second, 12*time.Second)), restore()); err != nil {
		return nil, err
	}
	back := time.Now()
	for _, p := range r.process {
		if !p.Alive() {
			return nil, fmt.Errorf("%s ended because it may not write dead letters\n%s", p.Name, p.Tail())
		}
		if _, err := p.AwaitReady(ctx, 60*time.Second); err != nil {
			return nil, err
		}
	}
	return figures{"poison": float64(poison), "recovery s": round(time.Since(back))}, nil
}

// wrong starts roles with wrong settings: each must end at once with an error that names the cause.
func wrong(ctx context.Context, r *run) (figures, error) {
	file := func(name string) string { return filepath.Join(r.certs, name) }
	secure, _ := r.security("process")
	replace := func(flag, value string) []string {
		all := slices.Clone(secure)
		all[slices.Index(all, flag)+1] = value
		return all
	}
	const password = "TIDEMARK_KAFKA_SASL_PASSWORD=tidemark-process-secret"
	cases := []struct {
		name string
		args []string
		env  string
		says string
	}{
		{"wrong password", secure, password + "x", "authentication"},
		{"another authority", replace("--kafka-ca-file", file("otherca.pem")), password, "certificate"},
		{"stranger's certificate", r.certificate("stranger"), "", "certificate"},
		{
			"missing ACL", replace("--kafka-sasl-user", "tidemark-serve"),
			"TIDEMARK_KAFKA_SASL_PASSWORD=tidemark-serve-secret", "grant",
		},
		{"wrong partitions", append(slices.Clone(secure), "--partitions", "7"), password, "partitions"},
		{"wrong min.insync", append(slices.Clone(secure), "--min-insync", "3"), password, "min.insync.replicas"},
	}
	out := figures{}
	for _, c := range cases {
		limit, cancel := context.WithTimeout(ctx, 60*time.Second)
		args := append(append([]string{"process"}, r.sizing()...), c.args...)
		cmd := exec.CommandContext(limit, r.binary,
			append(args, "--data", filepath.Join(r.dir, "data-wrong"), "--admin-addr", rig.FreeAddr(), "--log-format",
				"text")...)
		cmd.Env = []string{c.env}
		begin := time.Now()
		output, err := cmd.CombinedOutput()
		cancel()
		exit := new(exec.ExitError)
		switch {
		case !errors.As(err, &exit) || exit.ExitCode() != 1:
			return nil, fmt.Errorf("%s: ends with %w, wanted exit code 1\n%s", c.name, err, output)
		case !strings.Contains(strings.ToLower(string(output)), c.says):
			return nil, fmt.Errorf("%s: does not say %q: %s", c.name, c.says, output)
		}
		out[c.name+" s"] = round(time.Since(begin))
	}
	return out, nil
}
