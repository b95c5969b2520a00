package archive

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"tidemark/parquetlog"
)

// A place is a kind of store that a test runs on.
type place struct {
	name string
	url  func(t *testing.T) string // of a new, empty archive
}

// stores returns a folder, and the bucket at S3_ENDPOINT if .ci/s3 has started a server.
func stores(t *testing.T) []place {
	t.Helper()
	all := []place{{"folder", func(t *testing.T) string {
		t.Helper()
		_, url := folderURL(t)
		return url
	}}}
	if os.Getenv("S3_ENDPOINT") != "" {
		all = append(all, place{"s3", func(*testing.T) string {
			return fmt.Sprintf("s3://archive/%d", time.Now().UnixNano())
		}})
	} else {
		t.Log("no S3 server: see .ci/s3")
	}
	return all
}

// objects returns the names and hashes of an archive's objects.
func (place) objects(t *testing.T, url string) map[string]string {
	t.Helper()
	store, err := parquetlog.Location{URL: url, Endpoint: endpointOf(url)}.Open()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	names, err := store.List(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".parquet") {
			continue
		}
		in, err := store.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.New()
		if _, err := io.Copy(hash, in); err != nil {
			t.Fatal(err)
		}
		in.Close()
		found[name] = fmt.Sprintf("%x", hash.Sum(nil))
	}
	return found
}
