package input

import (
	"encoding/json"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input/inputtest"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// plain is the simplest sink: it makes maps and slices. It is the oracle of the other sinks.
type plain struct{ open []any }

func (s *plain) put(field string, v any) {
	switch c := s.open[len(s.open)-1].(type) {
	case map[string]any:
		c[field] = v
	case []any:
		s.open[len(s.open)-1] = append(c, v)
	}
}

func (s *plain) object(string, int) { s.open = append(s.open, map[string]any{}) }
func (s *plain) array(string, int)  { s.open = append(s.open, []any{}) }

func (s *plain) end(field string) {
	v := s.open[len(s.open)-1]
	s.open = s.open[:len(s.open)-1]
	s.put(field, v)
}

func (s *plain) null(field string)                  { s.put(field, nil) }
func (s *plain) text(field, t string)               { s.put(field, t) }
func (s *plain) base64(field, t string)             { s.put(field, []byte(t)) } // as in encoding/json
func (s *plain) integer(field string, n int64)      { s.put(field, n) }
func (s *plain) float(field string, n float64)      { s.put(field, n) }
func (s *plain) number(field string, n json.Number) { s.put(field, n) }
func (s *plain) boolean(field string, b bool)       { s.put(field, b) }
func (s *plain) sorted() bool                       { return false }

func (s *plain) texts(field string, list []string) {
	s.put(field, append([]string{}, list...))
}

// plainValue makes the document from maps.
func plainValue(t testing.TB, refs *Refs, r *authz.Request, f *authz.Facts) ast.Value {
	t.Helper()
	s := plain{open: []any{map[string]any{}}}
	if err := walk(&s, refs, r, f); err != nil {
		t.Fatal(err)
	}
	v, err := ast.InterfaceToValue(s.open[0])
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestValue_EqualsThePlainDocument(t *testing.T) {
	d := inputtest.New(7)
	some := refsOfRules(t, `allow if {
	input.key.status == "active"
	input.quota[_].state == "ok"
	input.attributes.request.http.headers["x-a"] == input.parsed_body.a.b
	count(input.attributes.request.http.headerMap.headers) > 0
}`)
	for range 2000 {
		r, f := d.Request(), d.Facts()
		d.Nudge(r, f)
		for _, refs := range []*Refs{everything, some} {
			got, want := mustValue(t, refs, r, f), plainValue(t, refs, r, f)
			if got.Compare(want) != 0 || jsonOf(t, got) != jsonOf(t, want) {
				t.Fatalf("got  %s\nwant %s", got, want)
			}
		}
	}
}

// BenchmarkInput makes the document of an ordinary request, directly and from maps, complete and with only the parts
// that the shipped policies read.
func BenchmarkInput(b *testing.B) {
	r, f := inputtest.Browser(), inputtest.ActiveKey()
	shipped, err := bundle.Compile(b.Context(), bundle.FS(policies.Files), bundle.Options{})
	if err != nil {
		b.Fatal(err)
	}
	some := RefsOf(shipped.Modules())
	for name, refs := range map[string]*Refs{"whole": everything, "read": some} {
		b.Run(name+"/device=on", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				mustValue(b, refs, r, f)
			}
		})
		b.Run(name+"/device=off", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				plainValue(b, refs, r, f)
			}
		})
	}
}
