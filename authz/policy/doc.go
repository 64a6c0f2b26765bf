// Package policy asks Rego policies for verdicts. It is the only package that knows OPA.
//
// A Policy is one immutable revision: compiled rules and the data they read. A reload builds another one beside it.
// Deciding takes no lock, does no I/O of its own, and never turns a failure into a permission: a decision that is
// undefined, late, broken or of the wrong type is an error, and the caller denies. The input and the decision have the
// shapes of OPA's Envoy plugin, with Tollkeeper's facts beside them, so that policies written for the plugin run
// unchanged.
//
// Read decide.go (one decision), input.go (what rules see) and verdict.go (what they answer). Package bundle loads and
// compiles the files.
package policy
