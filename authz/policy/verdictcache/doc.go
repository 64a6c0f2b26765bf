// Package verdictcache keeps the verdicts of one policy revision by the input that they were given for.
//
// Read cache.go, then copy.go (why a cached verdict keeps no request in memory). What it buys is in authz/decisions/008.
package verdictcache
