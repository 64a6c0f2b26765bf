package rego

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Profile counts and times the calls of the evaluations that have it in Call.Profile. These must be of one program, one after the other.
// A profile of an evaluation that panicked is not usable.
type Profile struct {
	program  *Program
	rules    []count // by number of the function
	builtins []count // by number of the name

	begin    time.Time
	readings time.Duration // how often the clock was read
	cost     time.Duration // of half a call of open and close
	stack    []opened
}

// count is what is known about the calls of one function.
type count struct {
	calls, remembered int
	own, total        time.Duration
}

// opened is a call that has not ended.
type opened struct {
	count        *count
	begin, inner time.Duration
}

// Calls tells what the calls of all rules of one name, or of one builtin function, took.
type Calls struct {
	Name string // such as data.tollkeeper.key.deny, startswith, or the sign of an operator
	// File and Line are where the first of the rules is. Builtin functions have none.
	File string
	Line int
	// Count is the number of calls, Remembered the number of those that an earlier one of the same evaluation had answered.
	Count, Remembered int
	// Own is the time of all calls without the rules and functions that they called, Total with these. The time for reading the clock is
	// taken off, as well as it can be known.
	Own, Total time.Duration
}

// NewProfile makes a profile of evaluations of the program. It takes some ten microseconds, for learning how fast the clock can be read.
func (p *Program) NewProfile() *Profile {
	out := &Profile{program: p, rules: make([]count, len(p.funcs)), builtins: make([]count, len(p.called)), begin: time.Now()}
	const rounds, times = 5, 50
	var ignored count
	least := time.Hour
	for range rounds {
		begin := time.Now()
		for range times {
			out.open(&ignored)
			out.close()
		}
		least = min(least, time.Since(begin))
	}
	out.cost, out.readings = least/(2*times), 0
	return out
}

// clock is the time so far without that for reading the clock.
func (p *Profile) clock() time.Duration {
	p.readings++
	return time.Since(p.begin) - p.readings*p.cost
}

func (p *Profile) open(c *count) {
	p.stack = append(p.stack, opened{count: c, begin: p.clock()})
}

func (p *Profile) close() {
	last := len(p.stack) - 1
	o := &p.stack[last]
	took := max(p.clock()-o.begin, 0)
	o.count.calls++
	o.count.total += took
	o.count.own += max(took-o.inner, 0)
	p.stack = p.stack[:last]
	if last > 0 {
		p.stack[last-1].inner += took
	}
}

// remembered counts a call that an earlier one had answered.
func (p *Profile) remembered(fn *function) {
	c := &p.rules[fn.number]
	c.calls++
	c.remembered++
}

// Rules are the rules that were called, those with most time of their own first.
func (p *Profile) Rules() []Calls {
	byName := make(map[string]*Calls)
	for i, f := range p.program.funcs {
		name := f.rules() // the same in each generation
		c := byName[name]
		if c == nil {
			c = &Calls{Name: name, File: f.file, Line: f.line}
			byName[name] = c
		}
		c.add(&p.rules[i])
	}
	return sorted(byName)
}

// Builtins are the builtin functions that were called, those with most time first. Comparisons with == are not among them.
func (p *Profile) Builtins() []Calls {
	byName := make(map[string]*Calls)
	for i, name := range p.program.called {
		if b := ast.BuiltinMap[name]; b != nil && b.Infix != "" {
			name = b.Infix
		}
		if byName[name] == nil { // two functions are called in
			byName[name] = &Calls{Name: name}
		}
		byName[name].add(&p.builtins[i])
	}
	return sorted(byName)
}

func (c *Calls) add(n *count) {
	c.Count += n.calls
	c.Remembered += n.remembered
	c.Own += n.own
	c.Total += n.total
}

func sorted(all map[string]*Calls) (out []Calls) {
	for _, c := range all {
		if c.Count > 0 {
			out = append(out, *c)
		}
	}
	slices.SortFunc(out, func(a, b Calls) int { return cmp.Or(cmp.Compare(b.Own, a.Own), strings.Compare(a.Name, b.Name)) })
	return out
}
