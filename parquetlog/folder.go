package parquetlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A folder is a store in the file system, by the path of its root.
type folder string

// unfinished is the folder of files that are not complete. Only a process that was killed leaves one.
const unfinished = "_unfinished"

// Create links a complete file to its name, which fails if the name is taken. A rename would overwrite.
func (d folder) Create(ctx context.Context, name string, file *os.File) (bool, error) {
	final := filepath.Join(string(d), name)
	err := d.link(ctx, final, file)
	exists := errors.Is(err, fs.ErrExist)
	if exists { // whoever created it may not have reached the sync
		err = nil
	}
	for dir := filepath.Dir(final); err == nil && len(dir) >= len(d); dir = filepath.Dir(dir) {
		err = syncFolder(dir)
	}
	if err != nil {
		return false, fmt.Errorf(flag+": %w", err)
	}
	return !exists, nil
}

func (d folder) link(ctx context.Context, final string, file *os.File) error {
	parts := filepath.Join(string(d), unfinished)
	if err := errors.Join(os.MkdirAll(filepath.Dir(final), 0o750), os.MkdirAll(parts, 0o750)); err != nil {
		return err
	}
	removeAbandoned(parts)
	part, err := os.CreateTemp(parts, "*")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name()) //nolint:errcheck // removeAbandoned does it later
	defer func() { _ = part.Close() }()
	if _, err := io.Copy(part, io.NewSectionReader(file, 0, 1<<62)); err != nil {
		return err
	}
	if err := errors.Join(part.Sync(), ctx.Err()); err != nil {
		return err
	}
	return os.Link(part.Name(), final)
}

func removeAbandoned(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(filepath.Join(dir, e.Name())) // tried again with the next object
		}
	}
}

func syncFolder(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (d folder) Open(_ context.Context, name string) (Stored, error) {
	file, err := os.Open(filepath.Join(string(d), name))
	if err != nil {
		return nil, fmt.Errorf(flag+": %w", err)
	}
	return file, nil
}

func (d folder) List(_ context.Context, under string) (names []string, err error) {
	err = fs.WalkDir(os.DirFS(string(d)), under, func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf(flag+": %w", err)
	}
	return names, nil
}
