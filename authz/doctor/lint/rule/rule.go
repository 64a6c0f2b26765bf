// Package rule says what a rule is and what it finds.
package rule

import (
	"fmt"
	"slices"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// Severity is how bad a finding is.
type Severity string

// The severities. An error breaks a promise: a request passes unchecked, or none passes. A warning may lead to an outage or
// a leak. An info is worth knowing.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Info    Severity = "info"
)

// Rank orders severities: the worse, the higher.
func (s Severity) Rank() int { return slices.Index([]Severity{Info, Warning, Error}, s) }

// Rule is one thing that can be wrong. Its row stands beside its checks. An id is never used again for something else.
type Rule struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"` // of its findings, unless they say otherwise
	Since    string   `json:"since"`    // the release that it came with
	Title    string   `json:"title"`    // what is wrong, in general
	Why      string   `json:"why"`      // what happens then
	Remedy   string   `json:"mend"`     // unless findings have their own
	Checks   []Check  `json:"-"`
}

// Check looks for what a rule is about.
type Check func(in *model.Model, report Report)

// Report takes a finding.
type Report func(Finding)

// Finding is something that is wrong in one place.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	Line     int      `json:"line,omitempty"`
	Object   string   `json:"object,omitempty"` // what people call the thing
	Path     string   `json:"path,omitempty"`   // from the root of the document
	Field    string   `json:"-"`                // from the object
	Wrong    string   `json:"wrong"`
	Remedy   string   `json:"mend"`
}

// At is a finding at a location. It has the severity and the remedy of its rule.
func At(l source.Location, format string, args ...any) Finding {
	return Finding{
		File: l.Document().File, Line: l.Line(), Object: l.Object(), Path: l.Path(), Field: l.Field(), Wrong: fmt.Sprintf(format, args...),
	}
}

// As is the finding with a severity of its own.
func (f Finding) As(s Severity) Finding {
	f.Severity = s
	return f
}

// FixedBy is the finding with a remedy of its own.
func (f Finding) FixedBy(remedy string) Finding {
	f.Remedy = remedy
	return f
}
