package policy

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
)

// Compiled reports whether a compiled program decides.
func (e Evaluator) Compiled() bool { return e.Reason == "" }

// Evaluator says what evaluates the policy.
func (p *Policy) Evaluator() Evaluator { return p.evaluator }
