// Package rules holds all rules, each row beside its checks, in a file for each family.
//
// Read rules.go first: the list of all rules and what the numbers mean. filter.go holds the questions about a check itself,
// asked once for all ways to configure it; routes.go finds requests that are not checked.
package rules
