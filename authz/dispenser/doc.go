// Package dispenser is a node's side of the quotas. It leases units from the ledger, serves reservations from them in memory
// without I/O, and gives back what it does not use.
//
// Read dispenser.go first: it is what a check and the server call. lease.go is the node's share of one bucket, call.go its
// calls to the ledger, and package holding the count that requests take units from. sim_test.go breaks all of it.
package dispenser
