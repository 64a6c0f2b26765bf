package authz

// Trace collects what a policy did, for people who ask why. A nil Trace collects nothing.
type Trace struct {
	// Rules are the rules that were entered, in order of their first entry.
	Rules []TracedRule
	// Input is the document that the policy read, as JSON.
	Input []byte
	// Query is the full name of the rule, or of the package, that was asked.
	Query string
	// Route is the entry of the routes that applies, as JSON: an object without fields where none does, nil where the policy
	// knows no routes.
	Route []byte
}

// TracedRule is one rule that a policy went through.
type TracedRule struct {
	Name string // the full name, such as data.tollkeeper.key.deny
	File string
	Line int
	Text string // the rule's first line
	Held bool   // the rule's body was true
	// Strings are the texts that stand in the rule, by which a reason's code is found.
	Strings []string
	// Facts are the parts of the input that the rule reads, such as input.key.status, with their values as JSON.
	Facts []TracedFact
}

// TracedFact is one part of the input and its value as JSON, "undefined" where it is not there.
type TracedFact struct{ Ref, Value string }
