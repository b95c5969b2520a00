package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A changesCommand prints the changes of a workspace's files.
type changesCommand struct {
	readFlags
	outputFlags
	Workspace  string `arg:"" help:"Workspace to follow." name:"ws"`
	Cursor     string `help:"Begin after this cursor, or at latest. Without it all files are printed first." placeholder:"CURSOR" env:"-"`
	PathPrefix string `help:"Only files whose path has this prefix." placeholder:"PATH" env:"-"`
	Status     string `help:"Status of the files: active, trashed or all. Others are printed as deleted." enum:"active,trashed,all" default:"active" placeholder:"STATUS" env:"-"`
	Follow     bool   `help:"Wait for further changes, until Ctrl-C. Without a connection, and after 503, it tries again." short:"f" env:"-"`
}

// followWait is how long a request waits for a change.
const followWait = "55s"

// followPause is the time after which --follow tries again. A variable for tests.
var followPause = 2 * time.Second

// A change is one change of a page.
type change struct {
	Op      string `json:"op"`
	FileID  string `json:"file_id"`
	Version int64  `json:"version"`
	File    struct {
		FileID string `json:"file_id"`
		Name   string `json:"name"`
		Path   string `json:"path"`
		Status string `json:"status"`
	} `json:"file"`
}

// Run prints pages of changes to the newest one, and with --follow until ctx ends, which is not an error.
func (c *changesCommand) Run(ctx context.Context, con console) error {
	if c.Workspace == "" {
		return usagef("the id of the workspace must not be empty")
	}
	cursor, err := c.follow(ctx, con)
	if cursor != "" {
		con.note("Continue with --cursor %s", cursor)
	}
	if c.Follow && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// follow returns the cursor after what was printed.
func (c *changesCommand) follow(ctx context.Context, con console) (cursor string, err error) {
	values := c.values()
	values.Set("status", c.Status)
	setIfGiven(values, "path_prefix", c.PathPrefix)
	cursor = c.Cursor
	for {
		setIfGiven(values, "cursor", cursor)
		answer, err := c.query(ctx, values, "workspaces", c.Workspace, "changes")
		if _, again := errors.AsType[*unavailableError](err); again && c.Follow && ctx.Err() == nil {
			con.note("Trying again in %s: %v", followPause, err)
			select {
			case <-time.After(followPause):
			case <-ctx.Done():
			}
			continue
		}
		if err != nil {
			return cursor, err
		}
		var p struct {
			Changes  []json.RawMessage `json:"changes"`
			Cursor   string            `json:"cursor"`
			UpToDate bool              `json:"up_to_date"`
		}
		if err := json.Unmarshal(answer, &p); err != nil {
			return cursor, fmt.Errorf("read the changes: %w", err)
		}
		if err := c.printChanges(con, p.Changes); err != nil {
			return cursor, err
		}
		if cursor = p.Cursor; p.UpToDate && !c.Follow {
			return cursor, nil
		}
		values.Del("at_least")
		if c.Follow {
			values.Set("wait", followWait)
		}
	}
}

func (c *changesCommand) printChanges(con console, changes []json.RawMessage) error {
	var table bytes.Buffer
	for _, data := range changes {
		if c.Output != asTable {
			if err := printOne(con.out, c.Output, data); err != nil {
				return err
			}
			continue
		}
		var change change
		if err := json.Unmarshal(data, &change); err != nil {
			return fmt.Errorf("read a change: %w", err)
		}
		f := change.File
		fmt.Fprintf(&table, "%s\t%s\tv%d\t%s\t%s\n", change.Op, cell(change.FileID+f.FileID), change.Version,
			dash(f.Status), dash(f.Path, f.Name))
	}
	return align(con.out, &table)
}
