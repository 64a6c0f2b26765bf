// Package envoy holds Envoy configurations that ask Tollkeeper, and the tests that run them.
//
// The tests start a real Envoy with the shipped files, in which only ports, sockets and folders are replaced (see package
// harness, which also finds or installs Envoy). Tests in *_e2e_test.go put the real Tollkeeper binary behind it. The others
// put a stand-in there, which answers as the test says: they show what envoy.yaml guarantees by itself, and TestFiles_Agree
// holds that the other files guarantee the same.
//
// Read stack_e2e_test.go and standin_test.go first, which set up the two kinds of tests, then files_e2e_test.go. routes_e2e_test.go
// sends the requests of testdata/routes/tried.md byte by byte (rawclient_test.go, rawupstream_test.go), and asks models of lenient
// servers (lenient_test.go) what they would serve of them.
package envoy
