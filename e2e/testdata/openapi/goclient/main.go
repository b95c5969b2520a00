// Command goclient reads a file, a listing and the changes of a workspace with the client that oapi-codegen generates
// from openapi.json.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"goclient/client"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Getenv("WORKSPACE"), os.Getenv("FILE")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, workspace, file string) error {
	withToken := func(_ context.Context, request *http.Request) error {
		request.Header.Set("Authorization", "Bearer "+os.Getenv("TOKEN"))
		return nil
	}
	c, err := client.NewClientWithResponses(os.Getenv("URL"), client.WithRequestEditorFn(withToken))
	if err != nil {
		return err
	}
	one, err := c.GetFileWithResponse(ctx, workspace, file, nil)
	if err != nil {
		return err
	}
	if one.JSON200 == nil || one.JSON200.FileId != file {
		return fmt.Errorf("file %s: %s %s", file, one.Status(), one.Body)
	}
	missing, err := c.GetFileWithResponse(ctx, workspace, "nothing-here", nil)
	if err != nil {
		return err
	}
	if p := missing.ApplicationproblemJSON404; p == nil || p.Code != "unknown_file" {
		return fmt.Errorf("no such file: %s %s", missing.Status(), missing.Body)
	}
	files, changesCursor, err := list(ctx, c, workspace)
	if err != nil {
		return err
	}
	if !files[file] {
		return fmt.Errorf("the listing of %d files has no %s", len(files), file)
	}
	changed, err := follow(ctx, c, workspace)
	if err != nil {
		return err
	}
	for id := range files {
		if !changed[id] {
			return fmt.Errorf("file %s is in the listing, and not in the changes", id)
		}
	}
	event, err := firstEvent(ctx, c, workspace, changesCursor)
	if err != nil {
		return err
	}
	fmt.Printf("%d files, %d changes, event: %s\n", len(files), len(changed), event)
	return nil
}

// list returns the ids of all files, and the cursor of the changes since.
func list(ctx context.Context, c *client.ClientWithResponses, workspace string) (
	ids map[string]bool, at string, err error,
) {
	ids = map[string]bool{}
	limit := 2
	for cursor := (*string)(nil); ; {
		page, err := c.ListFilesWithResponse(ctx, workspace, &client.ListFilesParams{Limit: &limit, Cursor: cursor})
		if err != nil {
			return nil, "", err
		}
		if page.JSON200 == nil {
			return nil, "", fmt.Errorf("listing: %s %s", page.Status(), page.Body)
		}
		for _, f := range page.JSON200.Files {
			ids[f.FileId] = true
		}
		if cursor = page.JSON200.NextCursor; cursor == nil {
			return ids, *page.JSON200.ChangesCursor, nil
		}
	}
}

// follow returns the ids of all changes, read in pages until there are no more, and then waits once.
func follow(ctx context.Context, c *client.ClientWithResponses, workspace string) (map[string]bool, error) {
	ids := map[string]bool{}
	limit, wait := 3, "100ms"
	params := &client.GetChangesParams{Limit: &limit}
	for {
		page, err := c.GetChangesWithResponse(ctx, workspace, params)
		if err != nil {
			return nil, err
		}
		if page.JSON200 == nil {
			return nil, fmt.Errorf("changes: %s %s", page.Status(), page.Body)
		}
		for _, change := range page.JSON200.Changes {
			value, err := change.ValueByDiscriminator()
			if err != nil {
				return nil, err
			}
			switch value := value.(type) {
			case client.Upsert:
				ids[value.File.FileId] = true
			case client.Delete:
				delete(ids, value.FileId)
			}
		}
		if params.Wait != nil {
			return ids, nil
		}
		params.Cursor = &page.JSON200.Cursor
		if page.JSON200.UpToDate {
			params.Wait = &wait
		}
	}
}

// firstEvent returns the name of the first server-sent event after a cursor.
func firstEvent(ctx context.Context, c *client.ClientWithResponses, workspace, cursor string) (string, error) {
	asEvents := func(_ context.Context, request *http.Request) error {
		request.Header.Set("Accept", "text/event-stream")
		return nil
	}
	response, err := c.GetChanges(ctx, workspace, &client.GetChangesParams{Cursor: &cursor}, asEvents)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			return name, nil
		}
	}
	return "", errors.New("the stream has no event")
}
