// Package harness runs what a request meets on its way: a real Envoy with a shipped configuration, a Tollkeeper process,
// and an upstream that records the requests it gets. The end-to-end tests, the demo and the benchmark use it.
//
// Everything listens on loopback, on ports that were free a moment before. The caller stops what it started.
//
// Read tollkeeper.go and proxy.go first, then process.go, on which both are built.
package harness
