// Package authz is Tollkeeper's vocabulary: the question of a proxy (Request), what is known about the caller (Facts), the result
// of the policy (Verdict) and the answer (Decision).
//
// Read request.go first, then facts.go, then decision.go. The package imports only the standard library, so every other package
// can use it. Its values are not synchronised: each is owned by one goroutine, or is never changed.
package authz
