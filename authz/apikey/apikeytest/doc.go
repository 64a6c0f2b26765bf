// Package apikeytest is the contract of apikey.Store as tests. Every store runs all of them, without exceptions.
//
// apikeytest.go has the list of tests, records.go those of single keys and accounts, imports.go those of imports and of many
// callers at once, and random.go compares random verbs with the store in memory.
package apikeytest
