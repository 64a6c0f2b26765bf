package policy

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input"
)

// explain decides and fills tr. It also returns the answer of the traced evaluation, which decides nothing: it is given everything that
// a policy could read, and without the index of rules it enters those that cannot be true as well, and may fail in them.
func (p *Policy) explain(ctx context.Context, r *authz.Request, f *authz.Facts, tr *authz.Trace) (decided, traced answer) {
	e := evaluation{
		Policy: p, decider: p.now.Load(), request: r, facts: f, trace: tr, time: time.Now(), nondeterministic: builtins.NDBCache{},
	}
	decided = e.decide(ctx)
	tr.Query, tr.Evaluator = p.Query(), p.Evaluator().String()
	if err := ended(ctx); err != nil {
		return decided, answer{err: err}
	}
	e.failed = nil
	return decided, e.traced(ctx)
}

// traced evaluates for the trace.
func (e *evaluation) traced(ctx context.Context) (a answer) {
	defer recovered(&a)
	document, err := input.Value(input.Everything(), e.request, e.facts)
	if err != nil {
		return answer{err: unfit(err)}
	}
	t := newTracer(document)
	defer t.fill(e.trace)
	return e.answer(e.run(ctx, document, rego.EvalQueryTracer(t), rego.EvalRuleIndexing(false)))
}

// tracer records which rules the evaluator enters, and which of them are true.
type tracer struct {
	input ast.Value
	index map[*ast.Rule]int
	rules []authz.TracedRule
}

var _ topdown.QueryTracer = (*tracer)(nil)

func newTracer(input ast.Value) *tracer { return &tracer{input: input, index: make(map[*ast.Rule]int)} }

// Enabled is always true: a tracer exists only if a trace is wanted.
func (t *tracer) Enabled() bool { return true }

// Config asks for no local variables.
func (t *tracer) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent records a step. The evaluator calls it at every step.
func (t *tracer) TraceEvent(e topdown.Event) {
	rule, ok := e.Node.(*ast.Rule)
	if !ok {
		return
	}
	i, seen := t.index[rule]
	if !seen {
		i = len(t.rules)
		t.index[rule] = i
		t.rules = append(t.rules, t.describe(rule))
	}
	if e.Op == topdown.ExitOp {
		t.rules[i].Held = true
	}
}

// fill writes the rules and the input into tr.
func (t *tracer) fill(tr *authz.Trace) {
	tr.Rules = t.rules
	tr.Input = []byte(jsonOf(t.input))
}

func (t *tracer) describe(rule *ast.Rule) authz.TracedRule {
	out := authz.TracedRule{Name: rule.Ref().GroundPrefix().String()}
	if l := rule.Location; l != nil {
		first, _, _ := strings.Cut(string(l.Text), "\n")
		out.File, out.Line, out.Text = l.File, l.Row, strings.TrimSpace(first)
	}
	s := scanner{}
	// Each else branch is a rule of its own. It is described when the evaluator enters it.
	ast.WalkTerms(rule.Head, s.visit)
	ast.WalkTerms(rule.Body, s.visit)
	out.Strings = s.strings
	for _, ref := range s.refs {
		out.Facts = append(out.Facts, authz.TracedFact{Ref: ref.String(), Value: t.lookup(ref)})
	}
	return out
}

// lookup returns a part of the input as JSON.
func (t *tracer) lookup(ref ast.Ref) string {
	v, err := t.input.Find(ref[1:])
	if err != nil {
		return "undefined"
	}
	return jsonOf(v)
}

// scanner collects the texts in a rule, and the parts of the input that it refers to.
type scanner struct {
	strings []string
	refs    []ast.Ref
}

// visit looks at one term of a rule. It returns true to skip the terms below.
func (s *scanner) visit(t *ast.Term) bool {
	switch v := t.Value.(type) {
	case ast.String:
		if !slices.Contains(s.strings, string(v)) {
			s.strings = append(s.strings, string(v))
		}
	case ast.Ref:
		s.ref(v)
		// The names in a path are not texts, but a part in brackets may refer to another part of the input.
		for _, part := range v[1:] {
			if _, ok := part.Value.(ast.String); !ok {
				ast.WalkTerms(part, s.visit)
			}
		}
		return true
	}
	return false
}

// ref adds a part of the input, up to the first variable in its path. It skips the whole input, which the trace already has.
func (s *scanner) ref(r ast.Ref) {
	if !r.HasPrefix(ast.InputRootRef) {
		return
	}
	r = r.ConstantPrefix()
	if len(r) > 1 && !slices.ContainsFunc(s.refs, func(o ast.Ref) bool { return o.Equal(r) }) {
		s.refs = append(s.refs, r)
	}
}

func jsonOf(v ast.Value) string {
	plain, err := ast.JSON(v)
	if err != nil {
		return "undefined"
	}
	b, err := json.Marshal(plain)
	if err != nil {
		return "undefined"
	}
	return string(b)
}
