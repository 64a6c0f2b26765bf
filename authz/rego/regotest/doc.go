// Package regotest writes random policies for tests that compare evaluators of Rego.
package regotest
