// Package lint reads configurations and says what is wrong with them: of Envoy, which asks Tollkeeper, of Istio and Envoy
// Gateway, which configure Envoy, and Tollkeeper's own. Most of the faults pass every validator, and show only when a
// request passes that should not, or when none passes any more. Nothing is asked of the network or of a cluster.
//
// It is the door to four layers, each of which knows only those before it: source (documents with positions), model (what
// they mean), rule (what a rule and a finding are) and rules (all of them, each beside its row). Read Run in this package
// first, then model/model.go, then rules/filter.go. A new rule is a row with its check in a file of rules, its name in the
// list of rules/rules.go, and samples in testdata/rules.
package lint
