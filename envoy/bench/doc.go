// Command bench compares Tollkeeper with its rivals in one run, and prints what a check costs each: an authorizer that does
// nothing, one that evaluates the same policies with OPA's SDK, and Tollkeeper with few keys, with many, and without its
// verdict cache. Each rival is a process of its own and gets the same load.
//
// The rivals take turns, for several rounds in a changing order, so that other work of the machine falls on all of them.
// Ratios are taken within a round, and the tables show medians over the rounds. A second part measures requests through a
// real Envoy, with and without the authorizers.
//
// Read compare.go first, which defines the rivals and gives them their turns, then drive.go, which loads and measures them,
// and report.go.
package main
