package authz

// Trace records an evaluation of a policy, for an explanation. A nil Trace records nothing.
type Trace struct {
	// Rules are the rules that were entered, in the order in which each was entered first.
	Rules []TracedRule
	// Input is the document that the policy read, as JSON.
	Input []byte
	// Query is the full name of the rule, or of the package, that was queried.
	Query string
	// Evaluator is what decides now: compiled, or OPA's and why.
	Evaluator string
	// Differed reports that the evaluators disagreed about this very decision, which denies, so that another one decides now.
	Differed bool
}

// TracedRule is one rule that a policy entered.
type TracedRule struct {
	Name string // the full name up to its first variable, such as data.tollkeeper.key.deny
	File string
	Line int
	Text string // the rule's first line
	Held bool   // the rule's body was true
	// Strings are the texts in the rule. A reason's code may be among them.
	Strings []string
	// Facts are the parts of the input that the rule reads, such as input.key.status, with their values as JSON.
	Facts []TracedFact
}

// TracedFact is one part of the input and its value as JSON, "undefined" if it is missing.
type TracedFact struct{ Ref, Value string }
