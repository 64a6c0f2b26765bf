// Command bench compares Tollkeeper with its rivals in one run, and prints what a check costs each.
//
// Five loads, the trials, are sent to an authorizer that does nothing, to a Tollkeeper that has just started, to one that 200,000
// callers have visited, and to one that evaluates policies as OPA's Envoy plugin does, with the keys as data: the street (callers by
// Zipf, ids in the paths, some denials and tokens), the hot path (one path, 1,000 callers), ids alone, callers by Zipf alone, and all
// callers alike. Further rivals get five paths: Tollkeeper with few keys, with many, and without its verdict cache, and OPA's SDK with
// our policies. Each server is a process of its own.
//
// The servers take turns, for several rounds in a changing order, so that other work of the machine falls on all of them.
// Ratios are taken within a round. The tables show medians over the rounds, and one shows how the ratios move from round to round. A
// second part measures requests through a real Envoy, with and without the authorizers.
//
// With -answers it measures instead what each part of an answer costs Envoy: see lanes.go.
//
// With -evaluators it compares OPA's evaluator with compiled programs instead: see package evaluators.
//
// Read load.go first: a load is data, and asker.go draws checks from it. specs.go lists the trials and the rivals; compare.go gives
// them their turns, visit.go sends all callers once, and drive.go loads and measures. tables.go and report.go print what came out.
package main
