// Package wire reads CheckRequests and writes CheckResponses (envoy.service.auth.v3) without protobuf's generated
// messages, which take longer than the rest of a check. A few lines with the protobuf library could replace it: oracle_test.go
// compares the two, and authz/decisions/001 and 002 say what the package gains.
//
// Read fields.go (field numbers), then reader.go and decode.go, then encode.go.
package wire
