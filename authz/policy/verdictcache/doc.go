// Package verdictcache caches the verdicts of one policy revision. The key of a verdict is made from the policy's input.
//
// Read cache.go, then copy.go (why a cached verdict does not keep a request in memory). authz/decisions/008 says what it gains.
package verdictcache
