// Package envoy holds Envoy configurations that ask Tollkeeper, and the tests that run them.
//
// The tests start a real Envoy with envoy.yaml as it is shipped (see the harness package for where that Envoy comes
// from). Tests in *_e2e_test.go put the real Tollkeeper binary behind it; the others put a stand-in there that
// answers whatever the test says, and show what the configuration itself guarantees.
package envoy
