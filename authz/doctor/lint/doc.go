// Package lint reads configurations of Envoy, Istio, Envoy Gateway and Tollkeeper and says what is wrong with them. Validators do
// not find most of these faults: they show only when a request passes unchecked, or when no request passes any more. The package
// does not use the network.
//
// It has four layers, and each imports only earlier ones: source (documents with positions), model (what documents mean), rule
// (what a rule and a finding are) and rules (all rules). Read Run in this package first, then model/model.go, then
// rules/filter.go. A new rule is a row with its check in a file of rules, an entry in the list of rules/rules.go, and samples in
// testdata/rules.
package lint
