// Package admin is the HTTP API for operators: accounts, keys, revocations, quotas, explanations and the state of the server.
// A caller of the API can do everything, so it is served on a port of its own and always needs the admin token.
//
// Read routes.go first, which lists every operation, then service.go, what the operations work on, and types.go, the JSON
// that they take and give. Client calls the API; the command line uses it.
package admin
