// Package policy evaluates Rego policies. Only this package and its parts bundle and input import OPA.
//
// A Policy is one immutable revision: compiled rules and the data they read. A reload builds another one.
// Deciding takes no lock, does no I/O of its own, and never turns a failure into a permission: a decision that is
// undefined, late, broken or of the wrong type is an error, and the caller denies. The input and the decision have the
// shapes of OPA's Envoy plugin, plus Tollkeeper's facts, so that policies written for the plugin run unchanged.
//
// Read decide.go (one decision), then verdict.go (how the result is read). Package bundle loads and compiles the files, and
// package input makes the input of the rules.
package policy
