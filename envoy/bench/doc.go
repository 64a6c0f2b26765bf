// Command bench compares Tollkeeper with its rivals in one run, and prints what a check costs each: an authorizer that does
// nothing, two that evaluate policies with OPA's SDK (ours, and one that has the keys as data), and Tollkeeper with few keys, with
// many, without its verdict cache, and with another id in the path of each request. Each rival is a process of its own.
//
// The rivals take turns, for several rounds in a changing order, so that other work of the machine falls on all of them.
// Ratios are taken within a round, and the tables show medians over the rounds. A second part measures requests through a
// real Envoy, with and without the authorizers.
//
// With -evaluators it compares OPA's evaluator with compiled programs instead: see package evaluators.
//
// Read compare.go first, which defines the rivals and gives them their turns, then drive.go, which loads and measures them,
// targets.go (the requests), and report.go.
package main
