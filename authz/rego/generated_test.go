package rego

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/tollkeeper-authz/tollkeeper/authz/rego/regotest"
)

// tally counts what became of generated policies. An invalid one does not compile, and a refused one cannot be planned.
type tally struct {
	Invalid, Refused, Policies, Evaluations       int
	WithValue, WithFailure, WithError, WithClocks int
	Extra                                         int
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
	p := regotest.New(seed, "input")
	names := slices.Sorted(maps.Keys(modes))
	some := map[string]Options{"all": {}}
	for _, name := range []string{names[seed%uint64(len(names))]} {
		some[name] = modes[name]
	}
	data := ast.MustParseTerm(p.Data).Value
	e, err := newEvaluators(ctx, p.Modules, data, some)
	if _, ok := errors.AsType[refused](err); ok {
		n.Refused++
		return ""
	}
	if err != nil {
		n.Invalid++
		return ""
	}
	n.Policies++
	defer func() { n.Extra += e.extra }()
	before := data.String()
	for _, text := range p.Inputs {
		input := ast.MustParseTerm(text).Value
		if d := e.compare(ctx, input); d != "" {
			return fmt.Sprintf("%s\n%v\ninput: %v", d, p, text)
		}
		n.count(e.compiled(ctx, "all", input))
	}
	if data.String() != before {
		return fmt.Sprintf("the data has become %v\n%v", data, p)
	}
	return ""
}

// TestEvaluators_Agree compares both evaluators on generated policies. FuzzEvaluators goes on from there.
func TestEvaluators_Agree(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // most of the time goes into short-lived syntax trees
	const parts = 4
	policies := uint64(2500)
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		policies = 600 // ten times slower
	}
	var sum tally
	var group sync.WaitGroup
	var mu sync.Mutex
	for part := range uint64(parts) {
		group.Go(func() {
			var n tally
			for seed := part; seed < policies; seed += parts {
				if d := n.compare(t.Context(), seed); d != "" {
					t.Errorf("policy %d: %s", seed, d)
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			sum.add(n)
		})
	}
	group.Wait()
	t.Logf("conformance: generated policies: %d agree in %d evaluations; %+v", sum.Policies, sum.Evaluations, sum)
	n := int(policies)
	if sum.Policies < n*7/10 || sum.WithValue < 5*n || sum.WithFailure < n || sum.WithError < n/2 || sum.WithClocks < n/5 || sum.Extra > 20 {
		t.Errorf("%+v: the policies have become too few or too plain", sum)
	}
}

func (n *tally) add(m tally) {
	n.Invalid, n.Refused, n.Policies = n.Invalid+m.Invalid, n.Refused+m.Refused, n.Policies+m.Policies
	n.Evaluations, n.Extra = n.Evaluations+m.Evaluations, n.Extra+m.Extra
	n.WithValue, n.WithFailure = n.WithValue+m.WithValue, n.WithFailure+m.WithFailure
	n.WithError, n.WithClocks = n.WithError+m.WithError, n.WithClocks+m.WithClocks
}

func FuzzEvaluators(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		var n tally
		if d := n.compare(t.Context(), seed); d != "" {
			t.Error(d)
		}
	})
}
