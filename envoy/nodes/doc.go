// Package nodes runs what a rollout has: four real Tollkeepers on one real PostgreSQL, behind one real Envoy or behind four, under load,
// while processes are killed with SIGKILL and restarted, PostgreSQL among them. It knows the product only from outside, except that
// it reads the books at the end.
//
// Afterwards no limit was exceeded by a single request, the books balance, nothing that was acknowledged is lost, and what is stranded is
// listed and bounded. make test runs it for less than a minute, make test-nodes for half an hour (or -nodes.for).
//
// Read nodes_test.go first, then fleet_test.go, which sets everything up, and faults_test.go. world_test.go is what the clients know, and
// verify_test.go compares it with what the servers say in the end.
package nodes
