// Package envoy holds Envoy configurations that ask Tollkeeper, and the tests that run them.
//
// The tests start a real Envoy with the files as they are shipped, in which nothing but places is replaced (see the
// harness package for that, and for where that Envoy comes from). Tests in *_e2e_test.go put the real Tollkeeper binary
// behind it; the others put a stand-in there that answers whatever the test says, and show what the configuration itself
// guarantees. Those use envoy.yaml; that the other files guarantee the same is what TestFiles_Agree is for.
package envoy
