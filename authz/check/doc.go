// Package check takes a request from question to answer, in production and when an operator asks for an explanation.
//
// Read check.go first: evaluation.run is the whole path, in seven steps. contracts.go says what the path needs from others,
// seal.go assembles the answers, and dedup.go charges a stream once however often the proxy asks about it.
package check
