// Package rule defines rules and findings.
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

// Rule describes one thing that can be wrong. It is defined next to its checks. An id is never reused for another rule.
type Rule struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"` // of its findings, unless they say otherwise
	Since    string   `json:"since"`    // the release that it came with
	Title    string   `json:"title"`    // what is wrong
	Why      string   `json:"why"`      // what happens because of it
	Remedy   string   `json:"mend"`     // unless findings have their own
	Checks   []Check  `json:"-"`
}

// Check looks for breaches of a rule.
type Check func(in *model.Model, report Report)

// Report records a finding.
type Report func(Finding)

// Finding is a fault in one place.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	Line     int      `json:"line,omitempty"`
	Object   string   `json:"object,omitempty"` // the name of the object for people
	Path     string   `json:"path,omitempty"`   // from the root of the document
	Field    string   `json:"-"`                // from the object
	Wrong    string   `json:"wrong"`
	Remedy   string   `json:"mend"`
}

// At returns a finding at a location, with the severity and the remedy of its rule.
func At(l source.Location, format string, args ...any) Finding {
	return Finding{
		File: l.Document().File, Line: l.Line(), Object: l.Object(), Path: l.Path(), Field: l.Field(), Wrong: fmt.Sprintf(format, args...),
	}
}

// As returns the finding with another severity than its rule.
func (f Finding) As(s Severity) Finding {
	f.Severity = s
	return f
}

// FixedBy returns the finding with another remedy than its rule.
func (f Finding) FixedBy(remedy string) Finding {
	f.Remedy = remedy
	return f
}
