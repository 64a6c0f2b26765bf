package input

import (
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input/inputtest"
)

// TestSlots_AreThePartsOfTheDocument compares slots with the same parts of the whole document.
func TestSlots_AreThePartsOfTheDocument(t *testing.T) {
	lists := [][][]string{
		nil,
		{{}},
		{{}, {"key"}, {"key", "status"}, {"quota", "rate", "state"}},
		{{"key", "status"}, {"key", "scopes"}, {"key", "meta", "role"}, {"attributes", "request", "http", "method"}, {"parsed_path"}, {"nothing"}, {"key", "nothing", "x"}},
		{{"attributes", "request", "http"}, {"attributes", "request", "http", "headers", "x-a"}, {"parsed_body"}, {"parsed_body", "a", "b"}, {"quota"}},
		{{"route"}, {"route", "charge", "rate"}, {"token", "claims"}, {"token", "claims", "sub"}, {"truncated_body"}, {"attributes", "contextExtensions"}},
	}
	d := inputtest.New(11)
	defined := 0
	for range 3000 {
		r, f := d.Request(), d.Facts()
		d.Nudge(r, f)
		document := mustValue(t, everything, r, f)
		for _, paths := range lists {
			slots, err := SlotsOf(paths).Fill(nil, r, f)
			if err != nil || len(slots) != len(paths) {
				t.Fatalf("%d slots, %v", len(slots), err)
			}
			for i, path := range paths {
				ref := make(ast.Ref, len(path))
				for j, name := range path {
					ref[j] = ast.StringTerm(name)
				}
				want, err := document.Find(ref)
				switch got := slots[i]; {
				case (err == nil) != (got != nil):
					t.Fatalf("%v is %v, want %v", path, got, want)
				case got != nil && got.Value.Compare(want) != 0:
					t.Fatalf("%v is %v, want %v", path, got, want)
				case got != nil:
					defined++
				}
			}
		}
	}
	if defined < 10_000 {
		t.Errorf("only %d slots had a value: the test is of no use", defined)
	}
}
