package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// slack passes what it cannot read: a function that fails under "not" makes the negation true.
const slack = `package envoy.authz

default allow := false

allow if not too_old

too_old if {
	print("asked by", input.key.id)
	to_number(input.key.meta.age) > 30
}
`

// asksCustomRules and customRules ask an operator's rules as the shipped policies do.
const asksCustomRules = `package envoy.authz

default allow := false

allow if count(data.tollkeeper.hook.deny) == 0
`

const customRules = `package tollkeeper.hook

deny contains x if some x in data.tollkeeper.custom.deny
`

func agedKey(age string) *authz.Facts {
	return &authz.Facts{Key: authz.KeyFact{ID: "k1", Meta: map[string]any{"age": age}}}
}

// TestDecide_ReportsFailedFunctions asks twice, so that a cached verdict without its errors would be noticed.
func TestDecide_ReportsFailedFunctions(t *testing.T) {
	p := mustLoad(t, files("p.rego", slack), Options{CachedVerdicts: 10})
	for range 2 {
		v := mustDecide(t, p, get("/"), agedKey("old"))
		if !v.Allowed || len(v.Errors) != 1 || !strings.HasPrefix(v.Errors[0], "p.rego:9: to_number: ") {
			t.Errorf("got %v with errors %q", v.Allowed, v.Errors)
		}
	}
	for range 2 {
		if v := mustDecide(t, p, get("/"), agedKey("20")); !v.Allowed || v.Errors != nil {
			t.Errorf("where nothing fails: %v with errors %q", v.Allowed, v.Errors)
		}
	}
	long := mustDecide(t, p, get("/"), agedKey(strings.Repeat("€", 10_000)))
	if len(long.Errors) != 1 || len(long.Errors[0]) > maxErrorText+10 {
		t.Errorf("a long error is kept whole: %d bytes", len(long.Errors[0]))
	}
}

func TestDecide_StrictErrors(t *testing.T) {
	yes, no := true, false
	shipped := []string{"a.rego", asksCustomRules, "r.rego", customRules, "c.rego", "package tollkeeper.custom\n\ndeny contains 1 if not young\n\nyoung if to_number(input.key.meta.age) < 30"}
	for name, c := range map[string]struct {
		src    []string
		strict *bool
		want   bool
	}{
		"a drop-in policy":               {[]string{"p.rego", slack}, nil, false},
		"a drop-in policy, when told to": {[]string{"p.rego", slack}, &yes, true},
		"the shipped query":              {shipped, nil, true},
		"the shipped query, told not to": {shipped, &no, false},
	} {
		p := mustLoad(t, files(c.src...), Options{StrictErrors: c.strict, CachedVerdicts: 10})
		if p.StrictErrors() != c.want {
			t.Errorf("%s: strict is %v", name, p.StrictErrors())
		}
		for range 2 {
			v, err := p.Decide(t.Context(), get("/"), agedKey("old"), nil)
			if (err != nil) != c.want || err != nil && v.Allowed || len(v.Errors) != 1 {
				t.Errorf("%s: got %v, %v with errors %q", name, v.Allowed, err, v.Errors)
			}
			if c.want {
				wantEvalError(t, err, "eval_builtin_error")
			}
		}
	}
}

func TestPrint_ReachesTheListenerEachTime(t *testing.T) {
	var got []string
	p := mustLoad(t, files("p.rego", slack), Options{CachedVerdicts: 10, Print: func(file string, line int, text string) {
		got = append(got, fmt.Sprintf("%s:%d: %s", file, line, text))
	}})
	for range 2 {
		mustDecide(t, p, get("/"), agedKey("20"))
	}
	if want := []string{"p.rego:8: asked by k1", "p.rego:8: asked by k1"}; strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("printed %q, want %q", got, want)
	}
	if !strings.Contains(p.Caching(), "print (p.rego:8)") {
		t.Errorf("caching: %s", p.Caching())
	}
	if quiet := mustLoad(t, files("p.rego", slack), Options{CachedVerdicts: 10}); quiet.Caching() != "on" {
		t.Errorf("without a listener caching is %s", quiet.Caching())
	}
}
