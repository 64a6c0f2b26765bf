package bundle

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// RegoV0 is the language of OPA before version 1.0: rules without "if" and "contains".
const RegoV0 = "v0"

// RegoVersions are the valid values of Options.RegoVersion.
var RegoVersions = []string{"", "v1", RegoV0}

// parseModule parses a file in one version of the language. With v0 it also takes files in v1, such as the shipped ones.
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

// hintV0 adds a hint to the first fault of every file that is written in v0.
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

// isV0 reports whether a file is valid in v0 but not in v1.
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
