package evaluators

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
)

func allRows(t testing.TB) []Row {
	t.Helper()
	cases, err := os.ReadFile("../../../authz/extauthz/testdata/opa-envoy.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := Rows(cases)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestMeasure_EveryRow decides the requests of each row a few times.
func TestMeasure_EveryRow(t *testing.T) {
	rows := allRows(t)
	names := make(map[string]bool)
	for _, r := range rows {
		if names[r.Name] {
			t.Errorf("two rows have the name %q", r.Name)
		}
		names[r.Name] = true
	}
	results, err := Measure(t.Context(), rows, Options{Rounds: 1})
	if err != nil {
		t.Error(err)
	}
	for _, r := range results {
		if r.Topdown.Nanos <= 0 || r.Compiled.Nanos <= 0 || r.Ratio <= 0 || r.Worst < r.Ratio-1e-9 {
			t.Errorf("%+v", r)
		}
	}
}

func TestMeasure_RefusesWhatProvesNothing(t *testing.T) {
	constant := rules("allow if true\n", nil)
	for _, row := range []Row{
		row("another verdict", constant, Deny, get("/")),
		row("no policy", rules("allow if", nil), Allow, get("/")),
		row("no program", rules(`allow if not {http.path: 1} == {http.method: 1, "b": 2}`, nil), Allow, get("/")),
	} {
		results, err := Measure(t.Context(), []Row{row}, Options{Rounds: 1})
		if len(results) > 0 || err == nil || !strings.HasPrefix(err.Error(), row.Name) {
			t.Errorf("%s: %+v, %v", row.Name, results, err)
		}
	}
}

func TestPair_VerdictsDiffer(t *testing.T) {
	var one, other pair
	r := row("row", rules("allow if true\n", nil), Either, get("/"))
	if err := errors.Join(one.load(t.Context(), r.Cases[0].Policy), other.load(t.Context(), rules("allow if false\n", nil))); err != nil {
		t.Fatal(err)
	}
	one.compiled = other.compiled
	if err := one.agree(t.Context(), &r.Cases[0]); err == nil {
		t.Error("different verdicts agree")
	}
}

func TestMeasureLoading_ProgramTakesMemory(t *testing.T) {
	topdown, compiled, err := MeasureLoading(t.Context(), Guarded(100), 1)
	if err != nil || topdown.Live <= 0 || compiled.Live <= topdown.Live || topdown.Time <= 0 || compiled.Time <= topdown.Time {
		t.Errorf("%+v, %+v, %v", topdown, compiled, err)
	}
}

// BenchmarkRows is for the profile of one row.
func BenchmarkRows(b *testing.B) {
	for _, r := range allRows(b) {
		b.Run(r.Name, func(b *testing.B) {
			c := &r.Cases[0]
			var p pair
			if err := p.load(b.Context(), c.Policy); err != nil {
				b.Fatal(err)
			}
			for name, p := range map[string]*policy.Policy{"topdown": p.topdown, "compiled": p.compiled} {
				b.Run(name, func(b *testing.B) {
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						if _, err := p.Decide(b.Context(), c.Requests[i%len(c.Requests)], c.Facts, nil); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		})
	}
}
