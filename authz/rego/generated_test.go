package rego

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// tally counts what became of generated policies. An invalid one does not compile, and a refused one cannot be planned.
type tally struct {
	Invalid, Refused, Policies, Evaluations       int
	WithValue, WithFailure, WithError, WithClocks int
}

func (n *tally) count(a answer) {
	n.Evaluations++
	for count, happened := range map[*int]bool{
		&n.WithValue: len(a.value) > 40, &n.WithFailure: len(a.failures) > 0, &n.WithError: a.err != "", &n.WithClocks: len(a.unsteady) > 0,
	} {
		if happened {
			*count++
		}
	}
}

// compare compares both evaluators on one generated policy, with several inputs. It returns how they differ, empty if they do not.
func (n *tally) compare(ctx context.Context, seed uint64) string {
	g := newGenerator(seed)
	modules, data := g.modules(), g.data()
	some := map[string]Options{"all": {}, "no slots": modes["no slots"]}
	if seed%2 == 0 {
		some = map[string]Options{"all": {}, "no folding": modes["no folding"]}
	}
	e, err := newEngines(ctx, modules, data, some)
	if _, ok := errors.AsType[refused](err); ok {
		n.Refused++
		return ""
	}
	if err != nil {
		n.Invalid++
		return ""
	}
	n.Policies++
	for range 3 {
		input := ast.MustParseTerm(g.object(3)).Value
		if d := e.compare(ctx, input); d != "" {
			var text strings.Builder
			for _, name := range slices.Sorted(maps.Keys(modules)) {
				text.WriteString(modules[name] + "\n")
			}
			return d + "\n" + text.String() + "data: " + data.String() + "\ninput: " + input.String()
		}
		n.count(e.compiled(ctx, "all", input))
	}
	return ""
}

// TestEngines_Agree compares both evaluators on generated policies. FuzzEngines goes on from there.
func TestEngines_Agree(t *testing.T) {
	const parts, policies = 4, 250
	var sum tally
	var group sync.WaitGroup
	var mu sync.Mutex
	for part := range uint64(parts) {
		group.Go(func() {
			var n tally
			for i := range uint64(policies) {
				if d := n.compare(t.Context(), i*parts+part); d != "" {
					t.Errorf("policy %d: %s", i*parts+part, d)
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			sum.add(n)
		})
	}
	group.Wait()
	t.Logf("%+v", sum)
	if sum.Policies < 500 || sum.WithValue < 500 || sum.WithFailure < 100 || sum.WithError < 100 || sum.WithClocks < 20 {
		t.Errorf("%+v: the policies have become too few or too plain", sum)
	}
}

func (n *tally) add(m tally) {
	n.Invalid, n.Refused, n.Policies, n.Evaluations = n.Invalid+m.Invalid, n.Refused+m.Refused, n.Policies+m.Policies, n.Evaluations+m.Evaluations
	n.WithValue, n.WithFailure, n.WithError, n.WithClocks = n.WithValue+m.WithValue, n.WithFailure+m.WithFailure, n.WithError+m.WithError, n.WithClocks+m.WithClocks
}

func FuzzEngines(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		var n tally
		if d := n.compare(t.Context(), seed); d != "" {
			t.Error(d)
		}
	})
}
