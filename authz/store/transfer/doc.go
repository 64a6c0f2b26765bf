// Package transfer copies everything that a store keeps into another store, of the same kind or not.
//
// What is copied are entries in a neutral form (entry.go), which depends on the domain's types and on no store: two stores with
// the same content have the same entries. A Source reads its entries in an order of its own, from a cursor. A Target writes
// a batch of entries and how far the copy has come, both or neither, so that a copy that was killed goes on where it was. Until
// the copy is finished, the target says that it is one, and is not served.
//
// Copy (copy.go) reads both ends again when all is written, and compares their numbers and hashes.
//
// Instants of the journal and of settlements are copied to the microsecond, which is what every store can hold.
package transfer
