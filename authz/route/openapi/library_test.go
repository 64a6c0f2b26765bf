package openapi

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestRead_AgreesWithLibrary compares which requests ask for which scopes with what kin-openapi reads of the same random
// documents, which have no x-tollkeeper.
func TestRead_AgreesWithLibrary(t *testing.T) {
	documents, operations := 0, 0
	for seed := range uint64(400) {
		files := randomDocument(rand.New(rand.NewPCG(seed, 1)))
		want, conflict := libraryReads(t, files)
		read, faults := Read("dir/api.json", from(files))
		if conflict {
			if len(faults) == 0 || !strings.Contains(faults[0].Text, "different scopes") {
				t.Errorf("seed %d: different scopes are no fault: %v\n%v", seed, faults, files)
			}
			continue
		}
		if len(faults) > 0 {
			t.Errorf("seed %d: %v\n%v", seed, faults, files)
			continue
		}
		var got []string
		for _, e := range read {
			match := e.Entry["match"].(map[string]any)
			scopes, _ := e.Entry["scopes"].([]any)
			got = append(got, fmt.Sprint(match["methods"].([]any)[0], " ", match["path"], " ", append([]any{}, scopes...)))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("seed %d: read\n%s\nthe library reads\n%s\nof %v", seed, strings.Join(got, "\n"), strings.Join(want, "\n"), files)
		}
		documents, operations = documents+1, operations+len(got)
	}
	if documents < 100 || operations < 1000 {
		t.Errorf("compared only %d documents with %d operations", documents, operations)
	}
}

// TestRead_WholeDocumentsAgreeWithLibrary holds that kin-openapi finds the same operations in the documents of real size. Their
// x-tollkeeper changes paths and scopes, so only names and methods are compared.
func TestRead_WholeDocumentsAgreeWithLibrary(t *testing.T) {
	for _, name := range []string{"metering.yaml", "payments.json"} {
		raw, err := os.ReadFile("testdata/documents/" + name)
		if err != nil {
			t.Fatal(err)
		}
		want := make(map[string]string)
		for path, item := range load(t, map[string]string{name: string(raw)}, name).Paths.Map() {
			for method, op := range item.Operations() {
				if op.OperationID != "" && path != "/internal/reindex" {
					want[op.OperationID] = method
				}
			}
		}
		operations, _ := Read(name, from(map[string]string{name: string(raw)}))
		for _, e := range operations {
			id := e.Entry["name"].(string)
			if method := e.Entry["match"].(map[string]any)["methods"].([]any)[0]; !strings.Contains(id, " ") && want[id] != method {
				t.Errorf("%s: %s has the method %v, the library reads %q", name, id, method, want[id])
			}
			delete(want, id)
		}
		if len(want) > 0 || len(operations) == 0 {
			t.Errorf("%s: not read: %v", name, want)
		}
	}
}

func load(t *testing.T, files map[string]string, name string) *openapi3.T {
	t.Helper()
	l := openapi3.NewLoader()
	l.ReadFromURIFunc = func(_ *openapi3.Loader, u *url.URL) ([]byte, error) {
		if text, found := files[path.Clean(u.Path)]; found {
			return []byte(text), nil
		}
		return nil, os.ErrNotExist
	}
	doc, err := l.LoadFromURI(&url.URL{Path: name})
	if err != nil {
		t.Fatalf("the library: %v\n%v", err, files)
	}
	return doc
}

// libraryReads returns lines of method, path and scopes. It reports a conflict if an operation has alternatives with different
// scopes.
func libraryReads(t *testing.T, files map[string]string) (out []string, conflict bool) {
	t.Helper()
	doc := load(t, files, "dir/api.json")
	for template, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			servers := doc.Servers
			if item.Servers != nil {
				servers = item.Servers
			}
			if op.Servers != nil {
				servers = *op.Servers
			}
			security := doc.Security
			if op.Security != nil {
				security = *op.Security
			}
			sets := make(map[string]bool)
			for _, requirement := range security {
				var set []string
				for _, scopes := range requirement {
					set = append(set, scopes...)
				}
				slices.Sort(set)
				if set = slices.Compact(set); len(set) > 0 {
					sets[fmt.Sprint(set)] = true
				}
			}
			scopes := "[]"
			for s := range sets {
				scopes, conflict = s, conflict || len(sets) > 1
			}
			for base := range libraryBases(servers) {
				decoded, _ := url.PathUnescape(template)
				out = append(out, method+" "+base+decoded+" "+scopes)
			}
		}
	}
	slices.Sort(out)
	return out, conflict
}

func libraryBases(servers openapi3.Servers) map[string]bool {
	out := make(map[string]bool)
	var expand func(text string, s *openapi3.Server, names []string)
	expand = func(text string, s *openapi3.Server, names []string) {
		if len(names) == 0 {
			u, _ := url.Parse(text)
			out[strings.TrimSuffix(u.Path, "/")] = true
			return
		}
		for _, v := range append(s.Variables[names[0]].Enum, s.Variables[names[0]].Default) {
			expand(strings.ReplaceAll(text, "{"+names[0]+"}", v), s, names[1:])
		}
	}
	for _, s := range servers {
		var names []string
		for name := range s.Variables {
			names = append(names, name)
		}
		expand(s.URL, s, names)
	}
	if len(servers) == 0 {
		out[""] = true
	}
	return out
}

// randomDocument makes a valid document without contradictions of its own, divided into files.
func randomDocument(r *rand.Rand) map[string]string {
	type m = map[string]any
	some := func(n int) bool { return r.IntN(n) == 0 }
	servers := func() any {
		out := []any{}
		for range 1 + r.IntN(3) {
			s := m{"url": []string{"/", "/v1", "https://a.example/v1/", "https://b.example", "//c.example/caf%C3%A9"}[r.IntN(5)]}
			if some(3) {
				s = m{"url": "https://{host}/{stage}/x", "variables": m{"host": m{"default": "h"}, "stage": m{"default": "a", "enum": []any{"a", "b", "c"}[r.IntN(2):]}}}
			}
			out = append(out, s)
		}
		return out
	}
	security := func() any {
		out := []any{}
		for range r.IntN(3) {
			requirement := m{}
			if some(2) {
				requirement["oauth"] = [][]any{{"read"}, {"read"}, {"write", "read"}, {}}[r.IntN(4)]
			}
			if some(3) {
				requirement["key"] = []any{}
			}
			out = append(out, requirement)
		}
		return out
	}
	operation := func() m {
		o := m{"responses": m{"200": m{"description": "ok"}}}
		if some(3) {
			o["security"] = security()
		}
		if some(6) {
			o["servers"] = servers()
		}
		return o
	}
	item := func() m {
		o := m{}
		for _, method := range methods {
			if some(3) {
				o[method] = operation()
			}
		}
		if some(4) {
			o["servers"] = servers()
		}
		return o
	}
	paths, pathItems, other := m{}, m{}, m{}
	for i := range 1 + r.IntN(8) {
		name := fmt.Sprint("p", i)
		template := fmt.Sprintf([]string{"/%s", "/%s/{id}", "/%s/{id}.pdf", "/%s/caf%%C3%%A9", "/%s/a/{b}:c/", "/v{x}/%s"}[r.IntN(6)], name)
		switch r.IntN(4) {
		case 0:
			pathItems[name] = item()
			paths[template] = m{"$ref": "#/components/pathItems/" + name}
		case 1:
			other[name] = item()
			paths[template] = m{"$ref": "../common/other.json#/" + name}
		default:
			paths[template] = item()
		}
	}
	doc := m{
		"openapi": []string{"3.0.3", "3.1.0"}[r.IntN(2)], "info": m{"title": "t", "version": "1"}, "paths": paths,
		"components": m{"pathItems": pathItems, "securitySchemes": m{
			"oauth": m{"type": "oauth2", "flows": m{}}, "key": m{"type": "apiKey", "in": "header", "name": "k"},
		}},
	}
	if some(2) {
		doc["servers"] = servers()
	}
	if some(2) {
		doc["security"] = security()
	}
	files := make(map[string]string)
	for name, v := range map[string]any{"dir/api.json": doc, "common/other.json": other} {
		text, _ := json.Marshal(v)
		files[name] = string(text)
	}
	return files
}
