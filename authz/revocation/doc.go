// Package revocation decides who is cut off. An operator, an issuer or a token's owner revokes by adding a Record, which names
// a key, an account, a token, a session, a subject, a client or a signing key. A Store keeps the records; a Set holds them in
// memory, and every request is matched against it.
//
// Read store.go for the records and the contract of a store, record.go for how two records for the same thing merge, and
// set.go for matching. pruner.go decides when an expired record may be forgotten.
package revocation
