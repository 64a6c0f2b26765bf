// Package bundle loads policies: it reads Rego and data files, compiles them, and reports faults. It does not evaluate them.
//
// Read source.go (which files belong to a policy), then bundle.go (Compile), then data.go and document.go (which files are data), then
// custom.go, dropped.go and warnings.go (faults that it explains to operators). place.go finds the line of a value of the data, and
// reference.go lists what rules refer to.
package bundle
