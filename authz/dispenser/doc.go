// Package dispenser is a node's side of the limits. For a quota it leases units from the ledger, serves reservations from them in
// memory without I/O, and gives back what it does not use. For a rate it counts in memory, by the node's share.
//
// Read dispenser.go first: it is what a check and the server call. holder.go is what the node has of one holder, lease.go its share
// of one quota, rate.go that of one rate, call.go the calls to the ledger, and package holding the count that requests take units
// from. idle.go keeps the leases of callers who have gone, for they may come again. sim_test.go breaks all of it, simlost_test.go has
// the ledger forget, and crash_test.go kills it.
package dispenser
