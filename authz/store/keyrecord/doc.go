// Package keyrecord is the binary form of keys and accounts in a store: a quarter of their JSON, and read ten times as
// fast. authz/decisions/017 has the measurements.
//
// A record begins with its version and ends with a checksum of itself and of the key that it is stored under. In between are
// flags that say which fields follow, and the fields, those that tell who is on which plan first. Numbers are varints, and texts
// follow their length. Read key.go for the two records, and meta.go for the JSON values in them.
package keyrecord
