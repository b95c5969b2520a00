package oracle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// JudgeAPI reads every workspace and every file over HTTP and compares the answers with the model.
func (m *Model) JudgeAPI(ctx context.Context, client *http.Client, base string, r *Report) error {
	r.check("answers wrong", "answers missing", "answers across tenants")
	begin := time.Now()
	byScope := map[string]map[string]*row{}
	for _, f := range m.rows {
		if byScope[f.scope] == nil {
			byScope[f.scope] = map[string]*row{}
		}
		byScope[f.scope][f.object] = f
	}
	scopes := slices.Sorted(maps.Keys(m.counts))
	asked := make([]*api, len(scopes))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for i, scope := range scopes {
		a, other := &api{ctx: ctx, client: client, base: base, found: &Report{}}, scopes[(i+1)%len(scopes)]
		asked[i] = a
		group.Go(func() error { return a.judgeScope(scope, other, m.counts[scope], byScope) })
	}
	err := group.Wait()
	requests := 0
	for _, a := range asked {
		r.Merge(a.found)
		requests += a.requests
	}
	r.Fact("api: requests", requests)
	r.Fact("api: ms a request",
		fmt.Sprintf("%.2f", float64(time.Since(begin).Milliseconds())/float64(max(requests, 1))))
	return err
}

const readers = 4 // at a time

type api struct {
	ctx      context.Context
	client   *http.Client
	base     string
	found    *Report
	requests int
	etag     string // of the last answer
}

// judgeScope judges one workspace and its files, and requests some of them from another workspace.
func (a *api) judgeScope(scope, other string, want *count, byScope map[string]map[string]*row) error {
	object, err := a.get(workspacePath(scope))
	if err != nil {
		return err
	}
	if d := toDoc(object).diff(want.doc()); d != "" {
		a.found.Violate("answers wrong", "workspace %q: %s", scope, d)
	}
	rows := byScope[scope]
	if len(rows) == 0 {
		return nil
	}
	if err := a.judgeListings(scope, rows, a.found); err != nil {
		return err
	}
	return a.judgeFiles(scope, other, rows, byScope[other], a.found)
}

// segment escapes one path segment; dots too, which clients and proxies may resolve.
func segment(s string) string { return strings.ReplaceAll(url.PathEscape(s), ".", "%2E") }

func workspacePath(scope string) string { return "/v1/workspaces/" + segment(scope) }

// FilePath is where the query API has a file.
func FilePath(scope, object string) string { return workspacePath(scope) + "/files/" + segment(object) }

// get returns the object of a 200 answer, and nil for 404.
func (a *api) get(path string) (map[string]any, error) {
	a.requests++
	req, err := http.NewRequestWithContext(a.ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", path, err)
	}
	a.etag = resp.Header.Get("ETag")
	switch resp.StatusCode {
	case http.StatusOK:
		return strictObject(body)
	case http.StatusNotFound:
		return nil, nil
	}
	return nil, fmt.Errorf("GET %s: %s: %s", path, resp.Status, body)
}

// judgeListings pages through all files with small pages, through the active ones, through one path prefix, and
// through the folders.
func (a *api) judgeListings(scope string, rows map[string]*row, r *Report) error {
	const prefix = "/reports"
	for _, q := range []struct {
		query string
		want  func(*row) bool
		order func(*row) string
	}{
		{"status=all&limit=7&kind=all", func(*row) bool { return true }, func(r *row) string { return r.object }},
		{
			"limit=1000", func(r *row) bool { return r.status == "active" && !r.folder },
			func(r *row) string { return r.object },
		},
		{
			"status=all&limit=2&kind=folder", func(r *row) bool { return r.folder },
			func(r *row) string { return r.object },
		},
		{
			"status=all&limit=50&kind=all&path_prefix=" + url.QueryEscape(prefix),
			func(r *row) bool { return strings.HasPrefix(r.texts["path"], prefix) },
			func(r *row) string { return r.texts["path"] },
		},
	} {
		found, err := a.list(workspacePath(scope) + "/files?" + q.query)
		if err != nil {
			return err
		}
		var order []string
		seen := map[string]bool{}
		for _, object := range found {
			got := toDoc(object)
			id, _ := object["file_id"].(string)
			want := rows[id]
			if want == nil || !q.want(want) || seen[id] {
				r.Violate("answers wrong", "%q ?%s: file %q does not belong there, or comes twice", scope, q.query, id)
				continue
			}
			seen[id] = true
			order = append(order, q.order(want))
			if d := got.diff(want.doc()); d != "" {
				r.Violate("answers wrong", "%q ?%s: file %q: %s", scope, q.query, id, d)
			}
		}
		if !slices.IsSorted(order) {
			r.Violate("answers wrong", "%q ?%s: not in order", scope, q.query)
		}
		for id, want := range rows {
			if q.want(want) && !seen[id] {
				r.Violate("answers missing", "%q ?%s: file %q", scope, q.query, id)
			}
		}
	}
	return nil
}

func (a *api) list(path string) (files []map[string]any, err error) {
	cursor := ""
	for range 100_000 {
		object, err := a.get(path + cursor)
		if err != nil {
			return nil, err
		}
		page, _ := object["files"].([]any)
		for _, f := range page {
			file, _ := f.(map[string]any)
			files = append(files, file)
		}
		next, ok := object["next_cursor"].(string)
		if !ok {
			return files, nil
		}
		cursor = "&cursor=" + url.QueryEscape(next)
	}
	return nil, fmt.Errorf("GET %s: the pages do not end", path)
}

// judgeFiles gets each file, and requests some of them from another workspace too.
func (a *api) judgeFiles(scope, other string, rows, otherRows map[string]*row, r *Report) error {
	for id, want := range rows {
		object, err := a.get(FilePath(scope, id))
		if err != nil {
			return err
		}
		if object == nil {
			r.Violate("answers missing", "%q/%q", scope, id)
			continue
		}
		if d := toDoc(object).diff(want.doc()); d != "" {
			r.Violate("answers wrong", "%q/%q: %s", scope, id, d)
		}
		if a.etag != fmt.Sprintf(`"%d"`, want.version) {
			r.Violate("answers wrong", "%q/%q: ETag %s of version %d", scope, id, a.etag, want.version)
		}
		if other == scope || otherRows[id] != nil || want.version%5 != 0 {
			continue
		}
		if object, err = a.get(FilePath(other, id)); err != nil {
			return err
		}
		if object != nil {
			r.Violate("answers across tenants", "%q/%q is answered in %q", scope, id, other)
		}
	}
	return nil
}
