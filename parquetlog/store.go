// Package parquetlog has the form of archived records, Parquet objects in an S3 bucket or a folder.
//
// Package sinks/archive writes the objects, and package replay reads them. It decides nothing about what is written
// when.
package parquetlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"strings"
)

// flag names the setting of a Location in errors.
const flag = "--archive-url (replay: --archive)"

// A Location is where an archive is.
type Location struct {
	URL      string // s3://bucket/prefix or file:///folder
	Endpoint string // of S3, like http://127.0.0.1:9000; empty: Amazon's
}

// A Store keeps objects by name. The error for one that does not exist is fs.ErrNotExist.
type Store interface {
	// Create stores the whole file under a name, or reports that the name is taken. Nobody sees a part of an object.
	Create(ctx context.Context, name string, file *os.File) (created bool, err error)
	Open(ctx context.Context, name string) (Stored, error)
	// List returns the names of the objects in a folder.
	List(ctx context.Context, folder string) ([]string, error)
}

// A Stored is an object that is open for reading.
type Stored interface {
	io.ReadSeekCloser
	io.ReaderAt
}

// Open checks the location. Nothing is connected.
func (l Location) Open() (Store, error) {
	u, err := url.Parse(l.URL)
	if err != nil {
		u = &url.URL{}
	}
	clean := path.Clean("/" + u.Path)
	switch {
	case u.User != nil:
		return nil, errors.New(flag + ": it must not contain credentials: set AWS_ACCESS_KEY_ID and " +
			"AWS_SECRET_ACCESS_KEY")
	case u.RawQuery != "" || u.Fragment != "" || strings.TrimSuffix(u.Path, "/") != strings.TrimSuffix(clean, "/"):
		return nil, fmt.Errorf(flag+" %q: want a path without '?', '#', '..' and empty parts", l.URL)
	case u.Scheme == "file" && u.Host == "" && clean != "/":
		return folder(clean), nil
	case u.Scheme == "s3" && u.Host != "" && u.Port() == "":
		return newBucket(l.Endpoint, u.Host, strings.TrimPrefix(clean, "/"))
	}
	return nil, fmt.Errorf(flag+" %q: want s3://bucket/prefix or file:///folder", l.URL)
}

// MarkerName returns the name of the object with the topic's id. Readers of Parquet ignore names that begin with '_'.
func MarkerName(topic string) string { return topic + "/_topic" }

// ReadMarker returns the topic's id in that object.
func ReadMarker(ctx context.Context, s Store, topic string) (id string, err error) {
	in, err := s.Open(ctx, MarkerName(topic))
	if err != nil {
		return "", err
	}
	defer func() { _ = in.Close() }()
	text, err := io.ReadAll(io.LimitReader(in, 1<<10))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", MarkerName(topic), err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Temporary returns a file that disappears with the process.
func Temporary(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, "archive-*")
	if err != nil {
		return nil, fmt.Errorf("create a temporary file: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("remove the name of a temporary file: %w", err)
	}
	return file, nil
}
