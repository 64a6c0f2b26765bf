// Package keycache is what memory holds of the keys and accounts of a store: the digests of all keys, so that an unknown key is
// refused without a look at the store, the records in use, and those in frequent use decoded. To decode all in use would make
// millions of objects, which the garbage collector would visit again and again.
//
// Read keycache.go for what is held and how it is changed, and reading.go for what a store does to be read.
package keycache
