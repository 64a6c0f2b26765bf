// Package wire reads CheckRequests and writes CheckResponses (envoy.service.auth.v3) without protobuf's generated
// messages, because those cost more than the rest of a check. The package is replaceable by a few lines of that library:
// the tests hold it to the library, in oracle_test.go, and authz/decisions/001 and 002 say what it buys.
//
// Read fields.go for the field numbers, then decode.go over reader.go, then encode.go.
package wire
