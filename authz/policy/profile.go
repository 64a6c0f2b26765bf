package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input"
	"github.com/tollkeeper-authz/tollkeeper/authz/rego"
)

// A profile has rounds of evaluations, half of them without measuring calls, and one evaluation before them that fills caches. None
// begins after profiledFor. The quickest round counts, because the others waited for something else.
const (
	profiledRounds = 5
	profiledTimes  = 20
)

var profiledFor = 50 * time.Millisecond // tests take their time

// harmless are functions whose result may change, but whose calls nobody sees. A profile repeats them.
var harmless = map[string]bool{"time.now_ns": true, "rand.intn": true, "uuid.rfc4122": true, "opa.runtime": true}

// measure is what evaluations are measured with. A nil measure measures nothing.
type measure struct {
	program  *rego.Profile // nil: calls are not measured
	lines    *lineTimer    // nil: lines are not measured
	n        int           // evaluations
	took     time.Duration
	disputed string // why OPA's evaluator decided after the program
}

// newMeasure makes a measure of calls.
func newMeasure(d *decider) *measure {
	m := &measure{lines: newLineTimer()}
	if d.program != nil {
		m.program = d.program.NewProfile()
	}
	return m
}

// calls returns nil if calls are not measured.
func (m *measure) calls() *rego.Profile {
	if m == nil {
		return nil
	}
	return m.program
}

// dispute notes why OPA's evaluator decides after the program.
func (m *measure) dispute(failed []topdown.Error, err error) {
	switch {
	case m == nil:
	case err != nil:
		m.disputed = textOf(err)
	default:
		m.disputed = errorsOf(failed)[0]
	}
}

// Profile evaluates the policy for a request and measures it: see check.Profiler. It walks the code of Decide, without the cache of
// verdicts, without repeating decisions on OPA's evaluator, and with what print writes thrown away.
func (p *Policy) Profile(ctx context.Context, r *authz.Request, f *authz.Facts) *authz.Profile {
	d := p.now.Load()
	begin := func(m *measure) *evaluation {
		return &evaluation{Policy: p, decider: d, request: r, facts: f, nondeterministic: builtins.NDBCache{}, measure: m}
	}
	calls := newMeasure(d)
	first := begin(calls)
	a := calls.decide(ctx, first)
	out := &authz.Profile{Once: first.once(ctx, a, calls.took)}
	whole := calls
	out.Evaluations = 1
	if out.Once == "" {
		calls, whole, out.Evaluations = d.rounds(ctx, begin)
	}
	out.Time, out.Input = whole.mean(), first.inputTime(whole.n)
	if a.err != nil {
		out.Error = textOf(a.err)
	}
	calls.fill(out)
	out.Hints = first.hints(a, calls)
	return out
}

// rounds evaluates in rounds. It returns the quickest measure with calls and without, and the number of evaluations of each kind.
func (d *decider) rounds(ctx context.Context, begin func(*measure) *evaluation) (calls, whole *measure, n int) {
	end := time.Now().Add(profiledFor)
	for range profiledRounds {
		c, w := newMeasure(d), &measure{}
		for more := true; more; {
			plain, measured := begin(w), begin(c)
			w.decide(ctx, plain)
			c.decide(ctx, measured)
			n++
			if time.Now().After(end) || ctx.Err() != nil || plain.effect()+measured.effect() != "" {
				return quicker(calls, c), quicker(whole, w), n
			}
			more = c.n < profiledTimes
		}
		calls, whole = quicker(calls, c), quicker(whole, w)
	}
	return calls, whole, n
}

func quicker(a, b *measure) *measure {
	if a == nil || b.mean() < a.mean() {
		return b
	}
	return a
}

// textOf is the text of an error in one line.
func textOf(err error) string {
	return strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "policy: ")), " ")
}

// decide evaluates and takes the time.
func (m *measure) decide(ctx context.Context, e *evaluation) answer {
	begin := time.Now()
	a := e.decide(ctx)
	m.took += time.Since(begin)
	m.n++
	if m.lines != nil {
		m.lines.pause()
	}
	return a
}

func (m *measure) mean() time.Duration { return m.took / time.Duration(m.n) }

// once says why the evaluation must not be repeated, "" if it may be.
func (e *evaluation) once(ctx context.Context, a answer, took time.Duration) string {
	switch effect := e.effect(); {
	case effect != "":
		return "it calls " + effect + ", which is not to be called for nothing"
	case ctx.Err() != nil:
		return "it did not end in time"
	case codeOf(a.err) == codePanic:
		return "it panicked"
	case took > profiledFor:
		return fmt.Sprintf("it takes longer than %v", profiledFor)
	}
	return ""
}

// effect returns a function that was called and that others may notice, "" for none. A call that failed is not recorded.
func (e *evaluation) effect() string {
	for _, name := range e.changing() {
		if !harmless[name] {
			return name
		}
	}
	return ""
}

// changing returns the functions whose result may change and that were called.
func (e *evaluation) changing() (names []string) {
	names = changingIn(e.failed)
	for name := range e.nondeterministic {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// inputTime takes the mean time in which the request becomes the input, in the quickest of several rounds.
func (e *evaluation) inputTime(times int) time.Duration {
	least := time.Hour
	for range profiledRounds {
		begin := time.Now()
		for range times {
			if e.slots == nil {
				_, _ = input.Value(e.refs, e.request, e.facts)
			} else {
				_, _ = e.slots.Fill(nil, e.request, e.facts)
			}
		}
		least = min(least, time.Since(begin)/time.Duration(times))
	}
	return least
}

// fill writes the calls of one evaluation.
func (m *measure) fill(out *authz.Profile) {
	if m.program != nil {
		out.Rules, out.Functions = m.callsOf(m.program.Rules()), m.callsOf(m.program.Builtins())
	}
	out.Lines = m.lines.calls(m.n)
	all := [][]authz.ProfiledCalls{out.Rules, out.Functions, out.Lines}
	var sum time.Duration
	for _, list := range all {
		for _, c := range list {
			sum += c.Own
		}
	}
	for _, list := range all {
		for i := range list {
			list[i].Share = float64(list[i].Own) / float64(max(sum, out.Time, 1)) // measuring also takes time, so the sum may be more
		}
	}
}

func (m *measure) callsOf(list []rego.Calls) (out []authz.ProfiledCalls) {
	n := time.Duration(m.n)
	for _, c := range list {
		out = append(out, authz.ProfiledCalls{
			Name: c.Name, File: c.File, Line: c.Line,
			Calls: mean(c.Count, m.n), Evaluated: mean(c.Count-c.Remembered, m.n), Own: c.Own / n, Total: c.Total / n,
		})
	}
	return out
}

// mean rounds up, so that what was called in some evaluations was called.
func mean(sum, n int) int { return (sum + n - 1) / n }
