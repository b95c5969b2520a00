package views

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/mux"
)

// Every route of the router and every operation of the document has a rule, and the document says which are open.
func TestEveryRouteHasARule(t *testing.T) {
	f := newFixture(t)
	routes := 0
	for _, r := range f.routeList() {
		for _, method := range r.methods {
			routes++
			if accessTo(r, method) == refused {
				t.Errorf("%s %s has no rule", method, r.template)
			}
			if isOf := strings.Contains(r.template, "{workspace}"); isOf != (accessTo(r, method) == ofWorkspace) {
				t.Errorf("the rule of %s %s does not fit its template", method, r.template)
			}
		}
	}
	if err := f.Handler().(*mux.Router).Walk(func(r *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		template := r.GetName()
		methods, _ := r.GetMethods() // the last route of a template has none: it refuses all others
		for _, method := range methods {
			routes--
			if accessTo(route{template: template}, method) == refused {
				t.Errorf("the router has %s %s, which has no rule", method, template)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if routes != 0 {
		t.Errorf("the router and the list differ by %d routes", routes)
	}
	var doc struct {
		Paths map[string]map[string]struct{ Security *[]map[string][]string }
	}
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	for path, operations := range doc.Paths {
		for method, operation := range operations {
			rule := accessTo(route{template: path}, strings.ToUpper(method))
			open := operation.Security != nil && len(*operation.Security) == 0
			if rule == refused || open != (rule == everyone) {
				t.Errorf("%s %s: rule %d, and the document says open: %v", method, path, rule, open)
			}
		}
	}
}

func TestARouteWithoutARuleIsRefused(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.Authorize = func(*http.Request, string) (bool, error) { return true, nil }
	})
	f.with(route{"/v1/secrets", readOnly, f.Server.files, nil, func(*call) (*answer, error) {
		t.Error("the handler was called")
		return &answer{}, nil
	}})
	if w := f.get("/v1/secrets"); w.Code != http.StatusInternalServerError {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A stream ends when its token is not valid any more.
func TestAStreamEndsWithItsToken(t *testing.T) {
	allowed := make(chan bool, 1)
	f := newFixture(t, func(c *Config) {
		c.Authorize = func(*http.Request, string) (bool, error) {
			is := <-allowed
			allowed <- is
			return is, nil
		}
	})
	allowed <- true
	f.recheckEvery = 5 * time.Millisecond
	next, ended := make(chan struct{}), make(chan struct{})
	accessRules["GET "+feed] = ofWorkspace
	defer delete(accessRules, "GET "+feed)
	f.with(f.ticks(next, ended))
	go f.get("/v1/workspaces/ws/feed")
	next <- struct{}{}
	time.Sleep(50 * time.Millisecond)
	next <- struct{}{}
	<-allowed
	allowed <- false
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the stream goes on")
	}
}
