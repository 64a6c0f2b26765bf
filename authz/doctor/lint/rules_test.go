package lint_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint"
)

// A sample is a section of testdata/rules/ID.txtar. Its title is "bad" or "good", the files of testdata/base that it edits,
// joined by +, and options as name=value. Its text is lines to remove (-) and to insert in their place (+). The lines to
// remove have to stand together in exactly one of the files.
type sample struct {
	id, kind string
	files    map[string]string
	opt      lint.Options
	line     string        // file:line where a finding has to be; "" for anywhere
	severity lint.Severity // of the findings of a bad sample, "" for any
	also     string        // another rule that a bad sample cannot help breaking
}

func TestRules_HaveSamples(t *testing.T) {
	kinds := make(map[string][]string)
	for _, s := range samples(t) {
		kinds[s.id] = append(kinds[s.id], s.kind)
		t.Run(s.id+"/"+s.kind, func(t *testing.T) { s.check(t) })
	}
	for _, s := range stateSamples(t) {
		kinds[s.id] = append(kinds[s.id], s.kind)
		t.Run(s.id+"/"+s.kind, func(t *testing.T) { s.check(t) })
	}
	for _, r := range lint.Rules() {
		for _, kind := range []string{"bad", "good"} {
			if !slices.Contains(kinds[r.ID], kind) {
				t.Errorf("%s has no %s sample", r.ID, kind)
			}
		}
		delete(kinds, r.ID)
	}
	for id := range kinds {
		t.Errorf("there are samples of %s, but no such rule", id)
	}
}

func TestRules_RowsAreSortedAndComplete(t *testing.T) {
	last := ""
	for _, r := range lint.Rules() {
		if r.ID <= last || r.Severity.Rank() < 0 || r.Since == "" || r.Title == "" || r.Why == "" || r.Remedy == "" || len(r.Checks) == 0 {
			t.Errorf("after %s: %+v", last, r)
		}
		last = r.ID
	}
}

// The files that samples edit have no findings, so that a finding comes from the edit.
func TestSamples_EditCleanFiles(t *testing.T) {
	names, _ := filepath.Glob("testdata/base/*.yaml")
	for _, name := range names {
		base := filepath.Base(name)
		s := sample{kind: "good", files: map[string]string{base: read(t, name)}, opt: meant()}
		if base == "upstream.yaml" { // it is clean only behind another Envoy
			s.files["envoy.yaml"] = read(t, "testdata/base/envoy.yaml")
		}
		t.Run(base, func(t *testing.T) { s.check(t) })
	}
}

// meant names the routes that are open on purpose in the files of testdata/base.
func meant() lint.Options {
	return lint.Options{Unchecked: []string{"/healthz"}, Routable: refusesScope, Operations: ordersOf}
}

// ordersOf stands in for the reader of OpenAPI documents. It knows one document.
func ordersOf(table, document string) ([]lint.Operation, bool) {
	if document != "orders.yaml" {
		return nil, false
	}
	operation := func(line int, name, method, path string) lint.Operation {
		return lint.Operation{File: document, Line: line, Entry: map[string]any{
			"name": name, "match": map[string]any{"path": path, "methods": []any{method}}, "scopes": []any{"orders"},
		}}
	}
	return []lint.Operation{operation(7, "listOrders", "GET", "/v1/orders"), operation(9, "getOrder", "GET", "/v1/orders/{id}")}, true
}

// refusesScope stands in for the server's own code, which knows all fields of a table.
func refusesScope(d lint.TableData) (out []lint.TableFault) {
	routes, _ := d.Routes.([]any)
	for i, item := range routes {
		if entry, ok := item.(map[string]any); ok && entry["scope"] != nil {
			out = append(out, lint.TableFault{At: []any{"routes", i, "scope"}, Text: "scope is no field here: did you mean scopes?"})
		}
	}
	if d.Paths == "keep" {
		out = append(out, lint.TableFault{At: []any{"paths"}, Text: "paths: want an object"})
	}
	return out
}

func (s *sample) check(t *testing.T) {
	t.Helper()
	var files []*lint.File
	for name, text := range s.files {
		files = append(files, lint.Parse(name, []byte(text), lint.AnySubject))
	}
	verify(t, s, files)
}

// verify checks that a bad sample breaks its rule and no other, and a good one none.
func verify(t *testing.T, s *sample, files []*lint.File) {
	t.Helper()
	r, err := lint.Run(files, s.opt)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	_ = r.WriteText(&text)
	if s.kind == "good" {
		if len(r.Findings) > 0 {
			t.Errorf("findings in a good sample:\n%s", text.String())
		}
		return
	}
	if !slices.ContainsFunc(r.Findings, func(f lint.Finding) bool { return f.Rule == s.id }) {
		t.Errorf("%s was not found:\n%s", s.id, text.String())
	}
	placed := s.line == ""
	for _, f := range r.Findings {
		if f.Rule != s.id && f.Rule != s.also || f.Wrong == "" || f.Remedy == "" || f.File == "" {
			t.Errorf("want %s only, with a fault and a remedy:\n%s", s.id, text.String())
			break
		}
		if s.severity != "" && f.Severity != s.severity {
			t.Errorf("want severity %s:\n%s", s.severity, text.String())
		}
		placed = placed || fmt.Sprintf("%s:%d", f.File, f.Line) == s.line
	}
	if !placed {
		t.Errorf("no finding at %s:\n%s", s.line, text.String())
	}
}

func samples(t *testing.T) []sample {
	t.Helper()
	names, err := filepath.Glob("testdata/rules/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	var out []sample
	for _, name := range names {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range archive.Files {
			out = append(out, readSample(t, strings.TrimSuffix(filepath.Base(name), ".txtar"), section.Name, string(section.Data)))
		}
	}
	return out
}

func readSample(t *testing.T, id, title, edits string) sample {
	t.Helper()
	words := strings.Fields(title)
	if len(words) < 2 {
		t.Fatalf("%s: %q: want bad or good, and files", id, title)
	}
	s := sample{id: id, kind: words[0], files: make(map[string]string), opt: meant()}
	for _, base := range strings.Split(words[1], "+") {
		s.files[base] = read(t, filepath.Join("testdata/base", base))
	}
	for _, word := range words[2:] {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "envoy":
			s.opt.EnvoyVersion = value
		case "cluster":
			s.opt.Cluster = value
		case "unchecked":
			s.opt.Unchecked = strings.Split(value, ",")
		case "at":
			s.line = value
		case "severity":
			s.severity = lint.Severity(value)
		case "also":
			s.also = value
		default:
			t.Fatalf("%s: %q: there is no option %q", id, title, name)
		}
	}
	s.applyEdits(t, edits)
	return s
}

// applyEdits applies pairs of lines to remove and to insert, one after the other.
func (s *sample) applyEdits(t *testing.T, edits string) {
	t.Helper()
	var out, in []string
	flush := func() {
		if len(out)+len(in) > 0 {
			s.edit(t, out, in)
		}
		out, in = nil, nil
	}
	for line := range strings.Lines(edits) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "-"):
			if len(in) > 0 {
				flush()
			}
			out = append(out, line[1:])
		case strings.HasPrefix(line, "+"):
			in = append(in, line[1:])
		case strings.TrimSpace(line) == "":
			flush()
		default:
			t.Fatalf("%s: want - or + at the beginning of %q", s.id, line)
		}
	}
	flush()
}

// edit replaces lines in the only file that has them.
func (s *sample) edit(t *testing.T, out, in []string) {
	t.Helper()
	if len(out) == 0 {
		t.Fatalf("%s: name with - the line before %q", s.id, in)
	}
	old := strings.Join(out, "\n") + "\n"
	done := 0
	for name, text := range s.files {
		if n := strings.Count(text, old); n > 0 {
			done += n
			s.files[name] = strings.Replace(text, old, strings.Join(append(in, ""), "\n"), 1)
		}
	}
	if done != 1 {
		t.Fatalf("%s: %q occurs %d times in %v, want once", s.id, old, done, s.files)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
