// Package revocationtest is the contract of revocation.Store as tests. Every store runs all of them, without exceptions.
//
// revocationtest.go has the list of tests, expiry.go those of suspensions and of pruning, and random.go compares random records
// with the store in memory.
package revocationtest
