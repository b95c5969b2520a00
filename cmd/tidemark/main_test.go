package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets tests start this test binary as the real tidemark: see testdata and dev_test.go.
// The default address of the query API is closed to all of them: somebody may be running dev.
func TestMain(m *testing.M) {
	if err := os.Setenv("TIDEMARK_API_URL", "http://127.0.0.1:1"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"tidemark": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: func(env *testscript.Env) error {
		env.Setenv("HOME", env.WorkDir)
		return nil
	}})
}

// tidemark runs a command in this process.
func tidemark(t *testing.T, args ...string) (out, err string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code = run(ctx, args, console{out: &stdout, err: &stderr})
	return stdout.String(), stderr.String(), code
}

// succeed runs a command that must succeed, and returns what it printed.
func succeed(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, code := tidemark(t, args...)
	if code != exitOK {
		t.Fatalf("tidemark %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSizeOfTheRowCache(t *testing.T) {
	for _, role := range [][]string{{"process"}, {"dev", "--brokers", "127.0.0.1:1"}} {
		for _, size := range []string{"-1", "1048577"} {
			_, errs, code := tidemark(t, append(role, "--row-cache-mb="+size)...)
			if code != exitUsage || !strings.Contains(errs, "--row-cache-mb "+size) {
				t.Errorf("%v of %s MB: exit %d, %s; want %d and the flag", role, size, code, errs, exitUsage)
			}
		}
	}
}

func TestExactlyOnceNeedsANameOfTheInstance(t *testing.T) {
	for _, role := range [][]string{{"process"}, {"dev", "--brokers", "127.0.0.1:1"}} {
		_, errs, code := tidemark(t, append(role, "--guarantee", "exactly_once")...)
		if code != exitUsage || !strings.Contains(errs, "--instance-id") {
			t.Errorf("%v: exit %d, %s; want %d and the flag that is missing", role, code, errs, exitUsage)
		}
	}
}
