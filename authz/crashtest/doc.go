// Package crashtest kills the real binary, again and again, and checks that nothing it acknowledged is lost and that no
// limit was ever exceeded. It knows the product only from outside: the gRPC port, the admin API, and the command line.
//
// make test runs a few rounds, make test-crash two hundred.
package crashtest
