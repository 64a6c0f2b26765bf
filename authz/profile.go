package authz

import "time"

// Profile tells what it takes to evaluate a policy for one request. Numbers are means of one evaluation, in the quickest of several rounds.
type Profile struct {
	// Evaluations is how many were timed. Once says why it was only one, "" if there were more.
	Evaluations int
	Once        string
	// Time is what an evaluation takes from the request to the verdict. Input is the part of it in which the request becomes the
	// input of the rules.
	Time, Input time.Duration
	// Rules are the rules of a compiled program, Functions the builtin functions that they call, and Lines the lines that OPA's evaluator
	// evaluated. The longest comes first.
	Rules, Functions, Lines []ProfiledCalls
	// Hints say what is slow, and why, in sentences.
	Hints []string
	// Error is why there is no verdict. The numbers then tell about an evaluation that failed.
	Error string
}

// ProfiledCalls tells about the calls of all rules of one name, of a builtin function, or of a line.
type ProfiledCalls struct {
	Name string // such as data.tollkeeper.key.deny or startswith; of a line, its longest expression
	File string // of the first rule, "" for builtin functions
	Line int
	// Calls is how often it was called. Evaluated is how often it was evaluated for that: a rule has one value in a decision.
	Calls, Evaluated int
	// Own is its time without that of the rules and functions that it calls, Total with it. Lines have only their own.
	Own, Total time.Duration
	Share      float64 // of the time of the evaluation, that Own is: from 0 to 1
}
