// Package memory keeps keys, revocations and quotas in the memory of one process: for tests, for a first try, and as the oracle
// that the other stores are compared with. It is meant to be obviously right before anything else. Nothing survives the process.
//
// Each of the three contracts has its file: keys.go (with import.go), revocations.go and ledger.go.
package memory
