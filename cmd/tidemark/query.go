package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
)

// A getCommand shows the state of one file.
type getCommand struct {
	readFlags
	outputFlags
	Workspace string `arg:"" help:"Workspace of the file." name:"ws"`
	File      string `arg:"" help:"Id of the file."`
}

// Run asks the API and prints its answer.
func (c *getCommand) Run(ctx context.Context, con console) error {
	if c.Workspace == "" || c.File == "" {
		return usagef("the ids of the workspace and of the file must not be empty")
	}
	answer, err := c.query(ctx, c.values(), "workspaces", c.Workspace, "files", c.File)
	if err != nil {
		return err
	}
	return c.printObject(con.out, answer)
}

// An lsCommand lists the files of a workspace.
type lsCommand struct {
	readFlags
	outputFlags
	Workspace  string `arg:"" help:"Workspace to list." name:"ws"`
	PathPrefix string `help:"Only files whose path has this prefix, ordered by path." placeholder:"PATH" env:"-"`
	Status     string `help:"Status of the files: active, trashed or all." enum:"active,trashed,all" default:"active" placeholder:"STATUS" env:"-"`
	Kind       string `help:"What to list: file, folder or all." enum:"file,folder,all" default:"file" placeholder:"KIND" env:"-"`
	Limit      int    `help:"Most files to list; 0 for all." default:"0" placeholder:"N" env:"-"`
	Cursor     string `help:"Continue a listing that ended at --limit." placeholder:"CURSOR" env:"-"`
}

// pageSize is the largest page of the API.
const pageSize = 1000

// A page is one answer of the listing.
type page struct {
	Files      []json.RawMessage `json:"files"`
	NextCursor *string           `json:"next_cursor"`
}

// Run prints the listing.
func (c *lsCommand) Run(ctx context.Context, con console) error {
	values := c.values()
	values.Set("status", c.Status)
	if c.Kind != "file" {
		values.Set("kind", c.Kind)
	}
	setIfGiven(values, "path_prefix", c.PathPrefix)
	setIfGiven(values, "cursor", c.Cursor)
	get := func(values url.Values) ([]byte, error) {
		return c.query(ctx, values, "workspaces", c.Workspace, "files")
	}
	return c.printPages(con, c.Workspace, c.Limit, values, get)
}

// A searchCommand searches the files of a workspace.
type searchCommand struct {
	readFlags
	outputFlags
	Workspace  string `arg:"" help:"Workspace to search." name:"ws"`
	Query      string `arg:"" help:"Words; each must begin a word of the file's name or path."`
	PathPrefix string `help:"Only files whose path has this prefix." placeholder:"PATH" env:"-"`
	Mime       string `help:"Only files of this type, such as application/pdf." placeholder:"TYPE" env:"-"`
	Limit      int    `help:"Most files to list; 0 for all." default:"100" placeholder:"N" env:"-"`
	Cursor     string `help:"Continue a search that ended at --limit." placeholder:"CURSOR" env:"-"`
}

// Run prints the files that were found.
func (c *searchCommand) Run(ctx context.Context, con console) error {
	values := c.values()
	values.Set("q", c.Query)
	setIfGiven(values, "path_prefix", c.PathPrefix)
	setIfGiven(values, "mime", c.Mime)
	setIfGiven(values, "cursor", c.Cursor)
	get := func(values url.Values) ([]byte, error) {
		return c.query(ctx, values, "workspaces", c.Workspace, "search")
	}
	return c.printPages(con, c.Workspace, c.Limit, values, get)
}

func setIfGiven(values url.Values, name, value string) {
	if value != "" {
		values.Set(name, value)
	}
}

// printPages follows the cursor to the end or the limit, and prints each page as it arrives.
func (f outputFlags) printPages(
	con console, workspace string, limit int, values url.Values, get func(url.Values) ([]byte, error),
) error {
	if workspace == "" {
		return usagef("the id of the workspace must not be empty")
	}
	if limit < 0 {
		return usagef("--limit %d: want 0 or more", limit)
	}
	list := &listing{form: f.Output, out: con.out}
	for left := limit; ; {
		values.Set("limit", strconv.Itoa(pageSize))
		if limit > 0 {
			values.Set("limit", strconv.Itoa(min(left, pageSize)))
		}
		answer, err := get(values)
		if err != nil {
			return err
		}
		var p page
		if err := json.Unmarshal(answer, &p); err != nil {
			return fmt.Errorf("read the listing: %w", err)
		}
		if err := list.add(p.Files); err != nil {
			return err
		}
		left -= len(p.Files)
		if p.NextCursor == nil || limit > 0 && left <= 0 {
			return list.end(p.NextCursor, con)
		}
		values.Set("cursor", *p.NextCursor)
	}
}

// A listing prints pages as they arrive: as an object like the API's answer, or as a table.
type listing struct {
	form  string
	out   io.Writer
	page  page
	begun bool
}

func (l *listing) add(files []json.RawMessage) error {
	if l.form != asTable {
		l.page.Files = append(l.page.Files, files...)
		return nil
	}
	var table bytes.Buffer
	if !l.begun {
		fmt.Fprintln(&table, "FILE\tPATH\tSIZE\tTYPE\tSTATUS\tVERSION\tUPDATED")
		l.begun = true
	}
	for _, data := range files {
		var f struct {
			ID      string `json:"file_id"`
			Name    string `json:"name"`
			Path    string `json:"path"`
			Size    *int64 `json:"size"`
			Mime    string `json:"mime"`
			Status  string `json:"status"`
			Version uint64 `json:"version"`
			Updated string `json:"updated_at"`
		}
		if err := json.Unmarshal(data, &f); err != nil {
			return fmt.Errorf("read a file of the listing: %w", err)
		}
		size := "-"
		if f.Size != nil {
			size = strconv.FormatInt(*f.Size, 10)
		}
		fmt.Fprintf(&table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", cell(f.ID), dash(f.Path, f.Name), size, dash(f.Mime),
			cell(f.Status), f.Version, dash(f.Updated))
	}
	return align(l.out, &table)
}

// end prints the collected object, or how to continue a table.
func (l *listing) end(cursor *string, con console) error {
	if l.form == asTable {
		if cursor != nil {
			con.note("There are more: continue with --cursor %s", *cursor)
		}
		return nil
	}
	l.page.NextCursor = cursor
	if l.page.Files == nil {
		l.page.Files = []json.RawMessage{}
	}
	if l.form == asYAML {
		return printYAML(l.out, l.page)
	}
	return printJSON(l.out, l.page)
}

// printObject prints a JSON object; as a table one line per field, in the object's order.
func (f outputFlags) printObject(w io.Writer, object []byte) error {
	if f.Output != asTable {
		return f.print(w, json.RawMessage(object), nil)
	}
	decoder := json.NewDecoder(bytes.NewReader(object))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return fmt.Errorf("the answer is no JSON object: %s", cell(string(object[:min(len(object), 500)])))
	}
	var table bytes.Buffer
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		text := string(value)
		var s string
		if json.Unmarshal(value, &s) == nil && text != "null" {
			text = s
		}
		fmt.Fprintf(&table, "%s\t%s\n", cell(fmt.Sprint(name)), cell(text))
	}
	return align(w, &table)
}
