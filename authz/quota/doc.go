// Package quota counts what callers use: plans and their limits, the periods over which limits count, and the ledger, the
// durable record that grants units to the nodes as leases. What a node does with a lease is package dispenser.
//
// Read ledger.go first: it is the contract between the nodes and every store. book.go is the arithmetic of its verbs, which all
// stores share, on the pages of page.go. period.go says when a limit starts to count anew.
package quota
