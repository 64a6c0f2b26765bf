package bundle

import (
	"cmp"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Reference is a reference to data or to the input, in a rule that the decision may use.
type Reference struct {
	// Path has the names from the root up to the first variable, such as "data", "tollkeeper", "plans".
	Path []string
	// Package is the package of the rule, in the same form.
	Package []string
	// Defined reports whether rules or data define the path or something above it. What is in the input is not known.
	Defined bool

	File         string
	Line, Column int
}

// References returns all references, in the order of files and lines.
func (b *Bundle) References() []Reference {
	var out []Reference
	for r := range b.used.reached {
		pkg := namesOf(r.Module.Package.Path)
		eachRef(r, func(ref ast.Ref, at *ast.Location) {
			if !ref.HasPrefix(ast.DefaultRootRef) && !ref.HasPrefix(ast.InputRootRef) {
				return
			}
			out = append(out, Reference{
				Path: namesOf(ref), Package: pkg, Defined: ref.HasPrefix(ast.DefaultRootRef) && b.used.isDefined(ref),
				File: at.File, Line: at.Row, Column: at.Col,
			})
		})
	}
	slices.SortFunc(out, func(x, y Reference) int {
		return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column), slices.Compare(x.Path, y.Path))
	})
	return out
}

// namesOf returns the names at the beginning of a reference.
func namesOf(ref ast.Ref) []string {
	out := []string{string(ref[0].Value.(ast.Var))}
	for _, part := range ref[1:] {
		name, isText := part.Value.(ast.String)
		if !isText {
			break
		}
		out = append(out, string(name))
	}
	return out
}
