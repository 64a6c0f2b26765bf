// Package rules holds all rules with their checks, in a file for each family.
//
// Read rules.go first: it lists all rules and explains their numbers. The rules in filter.go are about the check itself, for all
// ways to configure it. The rules in routes.go find requests that are not checked,
// and those in table.go what a table of routes leaves open.
package rules
