package rego

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/print"
	"github.com/open-policy-agent/opa/v1/types"
)

// mustCompile compiles data.p.main of a module.
func mustCompile(t testing.TB, module string, data ast.Value, o Options) *Program {
	t.Helper()
	decls := make(map[string]*ast.Builtin)
	for name, b := range o.Builtins {
		decls[name] = b.Decl
	}
	//lint:ignore SA1019 its successor replaces the set of all builtins, and this adds to it
	compiler := ast.NewCompiler().WithEnablePrintStatements(true).WithBuiltins(decls)
	if compiler.Compile(map[string]*ast.Module{"p.rego": ast.MustParseModule(module)}); compiler.Failed() {
		t.Fatal(compiler.Errors)
	}
	options := []func(*rego.Rego){rego.ParsedQuery(ast.MustParseBody("data.p.main = x"))}
	for _, b := range o.Builtins {
		options = append(options, rego.FunctionDyn(&rego.Function{Name: b.Decl.Name, Decl: b.Decl.Decl}, nil))
	}
	plan, err := Plan(t.Context(), compiler, options...)
	if err != nil {
		t.Fatal(err)
	}
	o.Data = data
	p, err := Compile(plan, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// looks counts how often an evaluation looks whether it is cancelled. That happens at a look, or never if it is zero.
type looks struct{ n, at int64 }

func (l *looks) Cancel() {}
func (l *looks) Cancelled() bool {
	l.n++
	return l.at > 0 && l.n >= l.at
}

// TestEval_IsCancelled has an evaluation of each kind that can be long, and counts how often it looks at the cancellation.
func TestEval_IsCancelled(t *testing.T) {
	var chain strings.Builder
	chain.WriteString("package p\nmain := f0(input.n)\n")
	for i := range 200 {
		fmt.Fprintf(&chain, "f%d(x) := y if y := f%d(x)\n", i, i+1)
	}
	chain.WriteString("f200(x) := x\n")
	for name, c := range map[string]struct {
		module string
		least  int64 // looks of an evaluation that is not cancelled
	}{
		"loop":               {"package p\nmain := count([x | some x in input.list; x != 7])", 100_000 / pollEvery},
		"loop in a loop":     {"package p\nmain := count({y | some x in input.short; some y in input.short; x != y})", 10_000 / pollEvery},
		"loop that is empty": {"package p\nmain if { every x in input.list { x >= 0 } }", 100_000 / pollEvery},
		"negation":           {"package p\nmain if not f(input.list)\nf(l) if { some x in l; x < 0 }", 100_000 / pollEvery},
		"walk":               {"package p\nmain := count([p | walk(input, [p, _])])", 100_000 / pollEvery},
		"calls":              {chain.String(), 200 / pollEvery},
		"builtins":           {"package p\nmain := [x | some n in input.short; x := sprintf(\"%d\", [n])]", 100},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustCompile(t, c.module, nil, Options{})
			input := longInput()
			all := looks{}
			if r, err := p.Eval(t.Context(), &Call{Input: input, Cancel: &all}); err != nil || len(r.Values) != 1 {
				t.Fatalf("%v, %v", r, err)
			}
			if n := all.n; n < c.least {
				t.Errorf("%d looks, want at least %d", n, c.least)
			}
			for _, at := range []int64{1, 2, all.n / 2, all.n} {
				some := looks{at: max(1, at)}
				r, err := p.Eval(t.Context(), &Call{Input: input, Cancel: &some})
				if !topdown.IsCancel(err) || len(r.Values) > 0 {
					t.Fatalf("cancelled at look %d: %v, %v", at, r, err)
				}
				if n := some.n; n > max(1, at)+1 {
					t.Errorf("cancelled at look %d, but it looked %d times", at, n)
				}
			}
		})
	}
}

// TestEval_StopsAtTheFirst counts the looks of rules that hold early.
func TestEval_StopsAtTheFirst(t *testing.T) {
	for name, c := range map[string]struct {
		module, want string
		stops        bool
	}{
		"loop":           {"package p\nmain if { some x in input.list; x > 5 }", "true", true},
		"loop in a loop": {"package p\nmain if { some x in input.list; some y in input.list; x + y == 7 }", "true", true},
		"second rule":    {"package p\nmain if input.n == 1\nmain if { every x in input.list { x >= 0 } }", "true", true},
		"function":       {"package p\nmain := f(input.list)\nf(l) := \"a\" if { some x in l; x > 5 }\nf(l) := \"a\" if { every x in l { x >= 0 } }", `"a"`, true},
		"every":          {"package p\nmain if not f(input.list)\nf(l) if { every x in l { x < 5 } }", "true", true},
		"every in every": {"package p\nmain if not f(input.short)\nf(l) if { every x in l { x >= 0; every y in l { x + y < 7 } } }", "true", true},
		"with":           {"package p\nmain := [q, input.n]\nq if { some x in input.list; r with input.n as x }\nr if input.n > 5", "[true, 1]", true},
		"other value":    {"package p\nmain := x if { some x in [1, 1]; some y in input.list; y == 5 }", "1", false},
		"else":           {"package p\nmain := 1 if { some x in input.list; x == 5 } else := 1 if { true }", "1", false},
	} {
		t.Run(name, func(t *testing.T) {
			var n looks
			r, err := mustCompile(t, c.module, nil, Options{}).Eval(t.Context(), &Call{Input: longInput(), Cancel: &n})
			if err != nil || len(r.Values) != 1 || r.Values[0].String() != `{"x": `+c.want+`}` {
				t.Fatalf("%v, %v, want %s", r, err, c.want)
			}
			if got := n.n; (got < 100) != c.stops {
				t.Errorf("%d looks, stops: %t", got, c.stops)
			}
		})
	}
}

func longInput() ast.Value {
	list := make([]*ast.Term, 100_000)
	for i := range list {
		list[i] = ast.InternedTerm(i)
	}
	return ast.NewObject(
		[2]*ast.Term{ast.StringTerm("list"), ast.ArrayTerm(list...)},
		[2]*ast.Term{ast.StringTerm("short"), ast.ArrayTerm(list[:100]...)},
		[2]*ast.Term{ast.StringTerm("n"), ast.InternedTerm(1)})
}

// TestEval_PassesTheContextOn has a function that waits for the context.
func TestEval_PassesTheContextOn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	own := ownFunction(func(bctx topdown.BuiltinContext, _ []*ast.Term, _ func(*ast.Term) error) error {
		cancel()
		<-bctx.Context.Done()
		return topdown.Halt{Err: &topdown.Error{Code: topdown.CancelErr, Message: "the deadline"}}
	})
	_, err := mustCompile(t, "package p\nmain := own.f(1)", nil, own).Eval(ctx, &Call{})
	if !topdown.IsCancel(err) && (err == nil || !strings.Contains(err.Error(), "the deadline")) {
		t.Errorf("%v", err)
	}
}

// ownFunction makes options with a function own.f of one argument.
func ownFunction(f topdown.BuiltinFunc) Options {
	decl := &ast.Builtin{Name: "own.f", Decl: types.NewFunction(types.Args(types.A), types.A)}
	return Options{Builtins: map[string]*topdown.Builtin{"own.f": {Decl: decl, Func: f}}}
}

// TestEval_InManyGoroutines runs one program with different inputs at once. Run it with the race detector.
func TestEval_InManyGoroutines(t *testing.T) {
	const module = `package p
main := {"set": s, "object": o, "constants": {[1, {"a": 2}], {"b"}}, "data": data.d, "sum": sum(data.d.list), "none": none, "q": q}
s contains x if { some x in data.d.list; x > input.n }
none contains x if { some x in data.d.list; x > 100 }
o[k] contains x if { some x in data.d.list; k := x % 3; x >= input.n }
q.a[k].b := x if { some x in data.d.list; k := sprintf("%d", [x + input.n]) }
`
	data := ast.MustParseTerm(`{"d": {"list": [5, 4, 3, 2, 1, 0], "z": {"c", "b", "a"}, "y": {"k": 1, "a": 2}}}`).Value
	before := data.String()
	p := mustCompile(t, module, data, Options{})
	want := make([]string, 6)
	eval := func(n int) string {
		in := ast.NewObject([2]*ast.Term{ast.StringTerm("n"), ast.InternedTerm(n)})
		r, err := p.Eval(context.Background(), &Call{Input: in})
		return fmt.Sprint(r.Values, err)
	}
	for n := range want {
		want[n] = eval(n)
	}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for j := range 300 {
				n := (i + j) % len(want)
				if got := eval(n); got != want[n] {
					t.Errorf("input %d: %s, want %s", n, got, want[n])
					return
				}
			}
		})
	}
	group.Wait()
	if data.String() != before {
		t.Errorf("the data has become %v", data)
	}
}

// TestEval_SharesConstants has rules that add to a collection, and return one, that all evaluations share. Run it with the race
// detector.
func TestEval_SharesConstants(t *testing.T) {
	const module = `package p
main := {"empty": empty, "set": set, "object": table, "deep": deep, "kept": kept, "given": f([1, 2]), "data": data.d, "with": changed}
empty contains x if { some x in input.none }
set contains x if { some x in {1, 2} }
set contains input.n
table[k] := v if { some k, v in {"a": 1} }
table["n"] := input.n
deep.a[k] contains input.n if { some k in ["x", "y"] }
kept := [x | x := {"k": [1, {2}]}; input.n > 0]
f(x) := [x, array.concat(x, [input.n]), object.union({"a": x}, {"b": input.n}), {3} | {input.n}]
changed := [x, input.n] if { x := data.d with data.d.z as 7 with data.d.list as [] }
`
	data := ast.MustParseTerm(`{"d": {"z": {"a": 1}, "list": [1, 2]}}`).Value
	for mode, o := range modes {
		p, before := mustCompile(t, module, data, o), data.String()
		eval := func(n int) string {
			r, err := p.Eval(context.Background(), &Call{Input: ast.NewObject([2]*ast.Term{ast.StringTerm("n"), ast.InternedTerm(n)})})
			return fmt.Sprint(r.Values, err)
		}
		want := []string{eval(5), eval(6), eval(7)}
		var group sync.WaitGroup
		for range 2 {
			group.Go(func() {
				for i := range 100 {
					if got := eval(5 + i%3); got != want[i%3] {
						t.Errorf("%s, input %d: %s, want %s", mode, 5+i%3, got, want[i%3])
						return
					}
				}
			})
		}
		group.Wait()
		if data.String() != before || emptySet.Value.(ast.Set).Len() > 0 {
			t.Errorf("%s: the data has become %v, and the empty set %v", mode, data, emptySet)
		}
	}
}

// TestEval_KeepsNothing evaluates something large and looks into the memory that later evaluations use again.
func TestEval_KeepsNothing(t *testing.T) {
	p := mustCompile(t, "package p\nmain := count([[x, y] | some x in input.short; some y in input.short; f(x, y)])\nf(x, y) if x != y", nil, Options{})
	r := newRun(t.Context(), p, &Call{Input: longInput()})
	r.ownSlots = fill(r.ownSlots[:0], p.slots, ast.NewTerm(longInput()))
	r.slots = r.ownSlots
	f := r.frame(&p.main)
	p.main.run(f)
	r.drop(f)
	if len(r.results) != 1 {
		t.Fatal(r.results)
	}
	r.release()
	for _, f := range r.free {
		for i, v := range f.locals[:cap(f.locals)] {
			if v != nil {
				t.Errorf("a frame keeps %v in local %d", v, i)
			}
		}
	}
	for _, v := range append(r.args[:cap(r.args)], r.ownSlots[:cap(r.ownSlots)]...) {
		if v != nil {
			t.Errorf("the run keeps %v", v)
		}
	}
	if r.results != nil || r.failed != nil || r.builtin != nil || r.call != nil || r.program != nil || r.context != nil {
		t.Errorf("the run keeps %+v", r)
	}
}

// TestEval_AfterAPanic panics inside calls. Later evaluations must not see what that left.
func TestEval_AfterAPanic(t *testing.T) {
	fails := true
	own := ownFunction(func(_ topdown.BuiltinContext, args []*ast.Term, yield func(*ast.Term) error) error {
		if fails {
			panic("broken")
		}
		return yield(args[0])
	})
	p := mustCompile(t, "package p\nmain := [f(x) | some x in [1, 2]]\nf(x) := y if y := own.f(g(x)) with input as {}\ng(x) := [x, q]\nq := 3", nil, own)
	for range 100 {
		func() {
			defer func() {
				if recover() == nil {
					t.Fatal("no panic")
				}
			}()
			p.Eval(t.Context(), &Call{})
		}()
	}
	fails = false
	r, err := p.Eval(t.Context(), &Call{})
	if err != nil || len(r.Values) != 1 || r.Values[0].String() != `{"x": [[1, 3], [2, 3]]}` {
		t.Errorf("%v, %v", r, err)
	}
}

// TestEval_FailedPrint has an output of print that fails. Then its expression is undefined, as every failed function is.
func TestEval_FailedPrint(t *testing.T) {
	p := mustCompile(t, "package p\nmain := 1 if print(input.x)\nmain := 2 if not input.x", nil, Options{})
	in := ast.MustParseTerm(`{"x": 1}`).Value
	if r, err := p.Eval(t.Context(), &Call{Input: in, PrintHook: printer{}}); err != nil || len(r.Values) != 1 {
		t.Errorf("%v, %v", r, err)
	}
	r, err := p.Eval(t.Context(), &Call{Input: in, PrintHook: printer{errors.New("no room")}})
	if err != nil && !strings.Contains(err.Error(), "no room") || len(r.Values) != 0 {
		t.Errorf("%v, %v", r, err)
	}
}

type printer struct{ err error }

func (p printer) Print(print.Context, string) error { return p.err }
