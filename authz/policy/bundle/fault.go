package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Codes of faults that OPA has no code for. OPA's own begin with "rego_".
const (
	faultFile     = "file_error"
	faultData     = "data_error"
	faultConflict = "data_conflict"
	faultQuery    = "query_error"
	faultSchema   = "schema_error"
	faultDropped  = "data_dropped"
)

// Fault is one reason why a policy cannot be loaded.
type Fault struct {
	File   string // empty if the fault is in no file
	Line   int    // from 1; 0 if unknown
	Column int    // from 1; 0 if unknown
	Code   string // for machines, such as rego_parse_error or data_conflict
	Text   string // for people, on one line
}

// String returns the fault in the form file:line:column: text, which editors understand.
func (f Fault) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File + ":")
	}
	if f.Line > 0 {
		fmt.Fprintf(&b, "%d:", f.Line)
		if f.Column > 0 {
			fmt.Fprintf(&b, "%d:", f.Column)
		}
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	return b.String() + f.Text
}

// LoadError says why a policy cannot be loaded. It has at least one fault.
type LoadError struct{ Faults []Fault }

// Error returns one line for each fault.
func (e *LoadError) Error() string {
	lines := make([]string, len(e.Faults))
	for i := range e.Faults {
		lines[i] = e.Faults[i].String()
	}
	return strings.Join(lines, "\n")
}

// loadError returns a LoadError with one fault.
func loadError(code, file, format string, args ...any) *LoadError {
	return &LoadError{Faults: []Fault{{File: file, Code: code, Text: oneLine(fmt.Sprintf(format, args...))}}}
}

// fileError returns a LoadError about a file that cannot be read.
func fileError(name string, err error) *LoadError {
	// The fault already names the file.
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return loadError(faultFile, name, "%v", err)
}

// ErrorOf turns an error of OPA's compiler into a *LoadError.
func ErrorOf(err error) error { return &LoadError{Faults: faultsOf(err)} }

// faultsOf turns OPA's errors about modules into faults.
func faultsOf(err error) []Fault {
	var many ast.Errors
	if errors.As(err, &many) {
		out := make([]Fault, 0, len(many))
		for _, e := range many {
			out = append(out, faultOf(e))
		}
		return out
	}
	var one *ast.Error
	if errors.As(err, &one) {
		return []Fault{faultOf(one)}
	}
	return []Fault{{Code: ast.CompileErr, Text: oneLine(err.Error())}}
}

func faultOf(e *ast.Error) Fault {
	f := Fault{Code: e.Code, Text: oneLine(e.Message)}
	if e.Location != nil {
		f.File, f.Line, f.Column = e.Location.File, e.Location.Row, e.Location.Col
	}
	if e.Details == nil || e.Code == ast.ParseErr {
		return f // the details of a syntax error only draw an arrow under the line
	}
	var details []string
	for _, l := range e.Details.Lines() {
		if l = strings.TrimSpace(l); l != "" {
			details = append(details, l)
		}
	}
	if len(details) > 0 {
		f.Text += " (" + oneLine(strings.Join(details, ", ")) + ")"
	}
	return f
}

// oneLine joins the lines and runs of space of a text, so that a fault stays on its line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
