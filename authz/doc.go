// Package authz is Tollkeeper's vocabulary: the question that a proxy asks (Request), what is known about the caller (Facts),
// what the policy says (Verdict) and what goes back (Decision).
//
// Read request.go first, then facts.go, then decision.go. The package imports only the standard library, so every other package
// can use it. Its values are not synchronised: each is owned by one goroutine, or is never changed.
package authz
