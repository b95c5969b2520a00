package views

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// codesOf returns the codes of problems in the source of a package: its constants code….
func codesOf(t *testing.T, folder string) (codes []string) {
	t.Helper()
	names, err := fs.Glob(os.DirFS(folder), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), folder+"/"+name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, "code") || len(spec.Values) != 1 {
				return true
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
				code, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				codes = append(codes, code)
			}
			return true
		})
	}
	return codes
}

// The document has every code, and no other; each is explained by the response that has it.
func TestOpenAPIHasEveryCode(t *testing.T) {
	var doc struct {
		Components struct {
			Schemas struct {
				Problem struct {
					Properties struct{ Code struct{ Enum []string } }
				}
			}
			Responses map[string]struct{ Description string }
		}
	}
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(codesOf(t, "."), codesOf(t, "../auth"), codesOf(t, "../deadletters"))
	want = append(want, "starting", "unknown_host") // of cmd, in front of this handler
	got := doc.Components.Schemas.Problem.Properties.Code.Enum
	for _, all := range []*[]string{&want, &got} {
		slices.Sort(*all)
		*all = slices.Compact(*all)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the codes of the source, and of the document (-source +document):\n%s", d)
	}
	explained := ""
	for _, response := range doc.Components.Responses {
		explained += response.Description
	}
	for _, code := range got {
		if code != codeMethod && code != codeInternal && !strings.Contains(explained, "("+code) &&
			!strings.Contains(explained, code+")") && !strings.Contains(explained, ", "+code) {
			t.Errorf("no response explains %s", code)
		}
	}
}
