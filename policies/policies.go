// Package policies holds the shipped Rego bundle: rules, their tests, their data and the schema of their input.
package policies

import "embed"

// ShippedTest is the file with tests of the shipped plans and routes. The other tests hold for any data.
const ShippedTest = "shipped_test.rego"

// Files are the rules and their tests (*.rego), the data (*.yaml), the schema of the input (schema/input.json) and
// the bundle's manual (README.md).
//
//go:embed *.rego *.yaml schema/input.json README.md
var Files embed.FS
