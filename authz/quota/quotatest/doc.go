// Package quotatest is the contract of quota.Ledger as tests. Every store runs all of it.
//
// Read the list in quotatest.go first: each line is one sentence of the contract. The tests are in lease.go, money.go
// (credits, resets, settlements, what is stranded), periods.go, members.go (sessions, recalls, rates) and crowd.go (many callers at
// once). random.go compares a ledger with the one in memory.
package quotatest
