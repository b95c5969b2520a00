package problem

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// clients use 503 for what a server has answered them, and answer none themselves.
var clients = map[string]bool{
	"../doctor/webhook.go": true, "../cmd/tidemark/api.go": true,
}

// Every 503 of the source has Retry-After: it is a problem with Retry, or written beside the header.
func TestEvery503HasRetryAfter(t *testing.T) {
	found := 0
	for _, folder := range []string{
		"auth", "cmd", "deadletters", "doctor", "ingress", "problem", "telemetry", "views", "web",
	} {
		err := filepath.WalkDir("../"+folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
				clients[filepath.ToSlash(path)] {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			for _, declared := range file.Decls {
				f, ok := declared.(*ast.FuncDecl)
				if !ok {
					continue
				}
				n, bare := statuses(f)
				found += n
				if bare > 0 {
					t.Errorf("%s: %s answers 503 without Retry-After", set.Position(f.Pos()), f.Name.Name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 10 {
		t.Errorf("only %d places with 503 were found: this test looks in the wrong folders", found)
	}
}

// statuses returns how often a function names 503, and how many of these have no Retry-After. A comparison with 503
// answers nothing.
func statuses(f *ast.FuncDecl) (found, bare int) {
	header := false
	var parents []ast.Node
	ast.Inspect(f, func(n ast.Node) bool {
		if n == nil {
			parents = parents[:len(parents)-1]
			return true
		}
		parents = append(parents, n)
		switch n := n.(type) {
		case *ast.BasicLit:
			header = header || n.Value == `"Retry-After"`
			if n.Value != "503" {
				return true
			}
		case *ast.SelectorExpr:
			if n.Sel.Name != "StatusServiceUnavailable" {
				return true
			}
		default:
			return true
		}
		found++
		if !compared(parents) && !retried(parents) {
			bare++
		}
		return true
	})
	if header {
		bare = 0
	}
	return found, bare
}

func compared(parents []ast.Node) bool {
	expression, ok := parents[len(parents)-2].(*ast.BinaryExpr)
	return ok && (expression.Op == token.EQL || expression.Op == token.NEQ)
}

// retried reports whether the innermost node is in a chain of calls that has Retry.
func retried(parents []ast.Node) bool {
	for _, n := range parents {
		if call, ok := n.(*ast.CallExpr); ok {
			if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Retry" {
				return true
			}
		}
	}
	return false
}

// The test above must be able to fail.
func TestA503WithoutRetryAfterIsFound(t *testing.T) {
	for source, want := range map[string]int{
		`problem.New(http.StatusServiceUnavailable, "x", "y").Retry(1).Write(w)`: 0,
		`problem.New(http.StatusServiceUnavailable, "x", "y").Write(w)`:          1,
		`w.WriteHeader(503)`: 1,
		`w.Header().Set("Retry-After", "1"); w.WriteHeader(503)`: 0,
		`if status == http.StatusServiceUnavailable { return }`:  0,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\nfunc f() {"+source+"}", 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, bare := statuses(file.Decls[0].(*ast.FuncDecl)); bare != want {
			t.Errorf("%s: %d without Retry-After, want %d", source, bare, want)
		}
	}
}
