package rego

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// TestProfile_Counts has calls of each kind: of rules and functions, by variable names, with replacements, answered from memory, of our
// own and of OPA's builtin functions.
func TestProfile_Counts(t *testing.T) {
	p := mustCompile(t, `package p
main := [q, q, f(1), f(2), r, data.p.d[input.name], g, other]

q := count(input.list)

f(x) := "one" if x == 1

else := y if {
	some y in input.list
	startswith(y, "b")
	contains(y, "c")
}

r contains x if some x in input.list
r contains "z" if upper(input.name) == "NAMED"

d.named := sprintf("%d", [q])

g := input.name

d.unused if input.name

other := x if x := g with input.name as "other"
`, nil, Options{})
	in := ast.MustParseTerm(`{"list": ["a", "bc", "b"], "name": "named"}`).Value
	plain, err := p.Eval(t.Context(), &Call{Input: in})
	if err != nil {
		t.Fatal(err)
	}
	profile := p.NewProfile()
	const times = 3
	for range times {
		if r, err := p.Eval(t.Context(), &Call{Input: in, Profile: profile}); err != nil || fmt.Sprint(r) != fmt.Sprint(plain) {
			t.Fatalf("%v, %v, want %v", r, err, plain)
		}
	}
	want := map[string]string{
		"data.p.main": "<query>:2 1 0", "data.p.q": "<query>:4 3 2", "data.p.f": "<query>:6 2 0", "data.p.r": "<query>:14 1 0",
		"data.p.d.named": "<query>:17 1 0", "data.p.g": "<query>:19 2 0", "data.p.other": "<query>:23 1 0",
		"count": ":0 1 0", "startswith": ":0 3 0", "contains": ":0 2 0", "upper": ":0 1 0", "sprintf": ":0 1 0",
	}
	all := append(profile.Rules(), profile.Builtins()...)
	for _, c := range all {
		if got := fmt.Sprintf("%s:%d %d %d", c.File, c.Line, c.Count/times, c.Remembered/times); got != want[c.Name] || c.Own > c.Total {
			t.Errorf("%+v, want %s", c, want[c.Name])
		}
		delete(want, c.Name)
	}
	if len(want) > 0 {
		t.Errorf("not called: %v", want)
	}
}

// TestProfile_Times has a function that takes long.
func TestProfile_Times(t *testing.T) {
	const long = 20 * time.Millisecond
	own := ownFunction(func(_ topdown.BuiltinContext, args []*ast.Term, yield func(*ast.Term) error) error {
		for begin := time.Now(); time.Since(begin) < long; {
			continue
		}
		return yield(args[0])
	})
	p := mustCompile(t, "package p\nmain := [q, r]\nq := own.f(1)\nr := own.f(2)", nil, own)
	profile := p.NewProfile()
	if _, err := p.Eval(t.Context(), &Call{Profile: profile}); err != nil {
		t.Fatal(err)
	}
	times := make(map[string]Calls)
	for _, c := range append(profile.Rules(), profile.Builtins()...) {
		times[c.Name] = c
	}
	main, q, r, f := times["data.p.main"], times["data.p.q"], times["data.p.r"], times["own.f"]
	if f.Own < 2*long || f.Own != f.Total || q.Total < long || q.Own > q.Total-long || r.Own > r.Total-long ||
		main.Total < q.Total+r.Total || main.Own > main.Total-2*long {
		t.Errorf("%+v", times)
	}
	if rules := profile.Rules(); rules[len(rules)-1].Own > rules[0].Own {
		t.Errorf("not sorted: %+v", rules)
	}
}

// TestProfile_OfAFailure: the calls of an evaluation that fails in the middle are closed.
func TestProfile_OfAFailure(t *testing.T) {
	own := ownFunction(func(topdown.BuiltinContext, []*ast.Term, func(*ast.Term) error) error {
		return topdown.Halt{Err: errors.New("halted")}
	})
	p := mustCompile(t, "package p\nmain := [f(x) | some x in input]\nf(x) := own.f(g(x))\ng(x) := x + 1", nil, own)
	profile := p.NewProfile()
	for range 2 {
		if _, err := p.Eval(t.Context(), &Call{Input: ast.MustParseTerm("[1, 2]").Value, Profile: profile}); err == nil {
			t.Fatal("no error")
		}
		if len(profile.stack) > 0 {
			t.Fatalf("%d calls are open", len(profile.stack))
		}
	}
	for _, c := range append(profile.Rules(), profile.Builtins()...) {
		if c.Count != 2 {
			t.Errorf("%+v", c)
		}
	}
}

// TestProfile_ChangesNoAnswer evaluates what has been hard to compile, with a profile.
func TestProfile_ChangesNoAnswer(t *testing.T) {
	for _, c := range readTraps(t, "traps.txt") {
		e, input, err := c.evaluators(t)
		if err != nil {
			continue
		}
		for mode, p := range e.programs {
			without, errWithout := p.Eval(t.Context(), &Call{Input: input, Time: aMoment})
			with, errWith := p.Eval(t.Context(), &Call{Input: input, Time: aMoment, Profile: p.NewProfile()})
			if fmt.Sprint(without, errWithout) != fmt.Sprint(with, errWith) {
				t.Errorf("%s, %s: %v, %v\nwithout: %v, %v", c.name, mode, with, errWith, without, errWithout)
			}
		}
	}
}

// BenchmarkProfile compares an evaluation with a profile and without. That without must cost what it did before there were profiles.
func BenchmarkProfile(b *testing.B) {
	var rules strings.Builder
	rules.WriteString("package p\nmain := count([1 | some x in input.list; f0(x)])\n")
	for i := range 20 {
		fmt.Fprintf(&rules, "f%d(x) if { f%d(x); startswith(x, \"a\") }\n", i, i+1)
	}
	rules.WriteString("f20(x) if endswith(x, \"b\")\n")
	p := mustCompile(b, rules.String(), nil, Options{})
	in := ast.MustParseTerm(`{"list": ["ab", "axb", "ab", "axb"]}`).Value
	for name, profile := range map[string]*Profile{"off": nil, "on": p.NewProfile()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Eval(b.Context(), &Call{Input: in, Profile: profile}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
