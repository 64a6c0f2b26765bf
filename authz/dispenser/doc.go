// Package dispenser is a node's side of the quotas. It leases units from the ledger, serves reservations from them in memory
// without I/O, and gives back what it does not use.
//
// Read dispenser.go first: what a check and the server call. lease.go is the share of one bucket that the node has, and
// holding.go the units from which requests take.
package dispenser
