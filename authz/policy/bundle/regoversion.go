package bundle

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// RegoV0 is the version of the language that OPA read before its version 1.0: rules without "if" and "contains".
const RegoV0 = "v0"

// RegoVersions are what Options.RegoVersion may be.
var RegoVersions = []string{"", "v1", RegoV0}

// parseModule reads a file in the version that is asked for. A file that is none of v0, as the shipped ones are not, is
// read as v1 beside those that are.
func parseModule(f *file, version string) (*ast.Module, error) {
	if version != RegoV0 {
		return parseAs(f, ast.RegoV1)
	}
	m, err := parseAs(f, ast.RegoV0)
	if err == nil {
		return m, nil
	}
	if m, err := parseAs(f, ast.RegoV1); err == nil {
		return m, nil
	}
	return nil, err
}

func parseAs(f *file, version ast.RegoVersion) (*ast.Module, error) {
	return ast.ParseModuleWithOpts(f.name, string(f.bytes), ast.ParserOptions{RegoVersion: version, ProcessAnnotation: true})
}

// hintV0 says of the first fault in each file that v0 would take what it is about, where that is so.
func hintV0(faults []Fault, files []file, version string) []Fault {
	if version == RegoV0 {
		return faults
	}
	for i := range faults {
		f := &faults[i]
		earlier := slices.ContainsFunc(faults[:i], func(o Fault) bool { return o.File == f.File })
		at := slices.IndexFunc(files, func(o file) bool { return o.name == f.File && o.isRego() })
		if !earlier && at >= 0 && isV0(&files[at]) {
			f.Text += "; this is Rego v0: set policy.rego_version to v0 (--rego-version v0), or rewrite it with opa fmt --v0-v1 --write"
		}
	}
	return faults
}

// isV0 reports whether a file is rules in v0 and not in v1.
func isV0(f *file) bool {
	m, err := parseAs(f, ast.RegoV0)
	if err != nil {
		return false
	}
	if _, err := parseAs(f, ast.RegoV1); err != nil {
		return true
	}
	return len(ast.CheckRegoV1(m)) > 0
}
