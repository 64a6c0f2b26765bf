package policy

import (
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/verdictcache"
	"github.com/tollkeeper-authz/tollkeeper/authz/rego"
)

// Evaluator says what evaluates a policy: a compiled program or OPA's evaluator.
type Evaluator struct {
	// Reason is why OPA's evaluator decides. It is empty if a compiled program does.
	Reason EvaluatorReason
	// Detail explains the reason in words, with a place in the policy if there is one.
	Detail string
}

// EvaluatorReason is why OPA's evaluator decides instead of a compiled program.
type EvaluatorReason string

const (
	// Configured means that the configuration asks for OPA's evaluator.
	Configured EvaluatorReason = "configured"
	// Unsupported means that OPA's planner or the compiler refuses something in the rules.
	Unsupported EvaluatorReason = "unsupported"
	// Differs means that the program and OPA's evaluator have disagreed about a decision.
	Differs EvaluatorReason = "difference"
)

// Compiled reports whether a compiled program decides.
func (e Evaluator) Compiled() bool { return e.Reason == "" }

// Name is compiled or opa.
func (e Evaluator) Name() string {
	if e.Compiled() {
		return "compiled"
	}
	return "opa"
}

// String is compiled, or says why it is OPA's evaluator.
func (e Evaluator) String() string {
	if e.Compiled() {
		return e.Name()
	}
	return "OPA's: " + e.Detail
}

// Evaluator says what evaluates the policy from now on.
func (p *Policy) Evaluator() Evaluator { return p.now.Load().evaluator }

// decider is what decides, with the verdicts that it gave. A decision uses one decider from its beginning to its end. It never
// changes, so a policy that cannot trust its program any more gets another decider, whose cache has no verdict of the program.
type decider struct {
	program   *rego.Program       // nil: OPA's evaluator evaluates every request
	slots     *input.Slots        // what the program reads of the input; nil: the whole document
	cache     *verdictcache.Cache // nil: every request is evaluated
	evaluator Evaluator
}

// newCache returns a cache of verdicts, nil if there is none.
func (p *Policy) newCache() *verdictcache.Cache {
	if p.cached <= 0 || len(p.nondeterminism.always) > 0 {
		return nil
	}
	return verdictcache.New(p.cached)
}

// distrusted is what decides after a difference.
var distrusted = Evaluator{Reason: Differs, Detail: "it and the compiled program have disagreed about a decision"}

// Distrust lets OPA's evaluator decide from now on, as after a difference. It reports whether the program decided until now.
func (p *Policy) Distrust() bool {
	before := p.now.Load()
	return before.program != nil && p.now.CompareAndSwap(before, &decider{cache: p.newCache(), evaluator: distrusted})
}
