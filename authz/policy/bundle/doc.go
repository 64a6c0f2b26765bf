// Package bundle loads policies: it reads Rego and data files, compiles them, and reports faults. It does not evaluate them.
//
// Read source.go (which files belong to a policy), then bundle.go (Compile), then data.go (which files are data), then custom.go,
// dropped.go and warnings.go (faults that it explains to operators).
package bundle
