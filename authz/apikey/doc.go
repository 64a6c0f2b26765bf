// Package apikey knows API keys: their text and how it is hashed, their life, and the contract of the store that keeps keys and
// the accounts they belong to.
//
// Read store.go for the types and the contract, identify.go for what a check does with a key, and format.go for the text and the
// digest. lifecycle.go has the changes of a key and importing.go the rules of an import; every store applies them.
package apikey
