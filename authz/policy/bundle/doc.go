// Package bundle loads policies: it reads Rego and data files, compiles them, and says what is wrong with them. It
// decides nothing.
//
// Read source.go (which files belong to a policy), then bundle.go (Compile), then custom.go and warnings.go (the mistakes
// that it explains to operators).
package bundle
