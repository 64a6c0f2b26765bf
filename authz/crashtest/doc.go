// Package crashtest kills the real binary, again and again, and checks that nothing it acknowledged is lost and that no
// limit was ever exceeded. It knows the product only from outside: the gRPC port, the admin API, and the command line.
//
// make test runs a few rounds, make test-crash two hundred. Callers who come and go for minutes before leases are given back in bulk
// need a clock of their own: package dispenser has the crash test for that.
package crashtest
