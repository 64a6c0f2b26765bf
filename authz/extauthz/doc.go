// Package extauthz serves Envoy: it turns CheckRequests (envoy.service.auth.v3) into authz.Requests, and decisions
// into CheckResponses. Other packages of the request path never see Envoy's types.
//
// Read server.go first, then decode.go with path.go and body.go. grpc.go connects it to gRPC, and the package wire holds the
// messages' format.
package extauthz
