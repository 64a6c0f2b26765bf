// Package quota counts what callers use: plans and their limits, the periods over which limits count, and the ledger, the
// durable record that grants units to the nodes as leases. What a node does with a lease is package dispenser.
//
// Read ledger.go first: it is the contract between the nodes and every store. record.go is what a store keeps of one holder, and
// book.go the arithmetic of the verbs on one bucket, on the pages of page.go; all stores share both. period.go says when a limit
// starts to count from 0. members.go is how nodes know of each other, and share the rates, which no ledger counts.
package quota
