package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/topdown"
)

// Codes of an EvalError that OPA has no code for. OPA's own begin with "eval_".
const (
	codeUndefined = "undefined"
	codeDecision  = "invalid_decision"
	codeInput     = "invalid_input"
	codePanic     = "panic"
	codeDiffers   = "evaluators_differ"
)

// Bounds for errors and for the output of print, because both may quote a request.
const (
	maxErrors    = 8
	maxErrorText = 400     // bytes
	maxPrinted   = 4 << 10 // bytes
)

// EvalError says why a policy gave no verdict. It is for the log: its text may show parts of the policy and of the
// request, so callers must not see it.
type EvalError struct {
	Code string // for machines, such as eval_conflict_error, undefined or invalid_decision
	File string // the policy's file, empty if unknown
	Line int    // from 1; 0 if unknown
	Text string

	cause error
}

func (e *EvalError) Error() string {
	if e.File == "" {
		return "policy: " + e.Text
	}
	return fmt.Sprintf("policy: %s:%d: %s", e.File, e.Line, e.Text)
}

// Unwrap returns the error of the evaluator, if it gave one.
func (e *EvalError) Unwrap() error { return e.cause }

func invalidDecision(format string, args ...any) error {
	return &EvalError{Code: codeDecision, Text: fmt.Sprintf(format, args...)}
}

// undefined is the error of a query without a value. It names the first function that failed, which may be the cause.
func undefined(query string, failed []topdown.Error) error {
	e := &EvalError{Code: codeUndefined, Text: query + " is undefined"}
	if len(failed) > 0 {
		e.Text += ", perhaps because of: " + failed[0].Message
		e.from(&failed[0])
	}
	return e
}

// evalError translates an error of OPA's evaluator.
func evalError(err error) error {
	var top *topdown.Error
	if errors.As(err, &top) {
		e := builtinError(top)
		e.cause = err
		return e
	}
	return &EvalError{Code: topdown.InternalErr, Text: err.Error(), cause: err}
}

func builtinError(failed *topdown.Error) *EvalError {
	e := &EvalError{Code: failed.Code, Text: failed.Message}
	e.from(failed)
	return e
}

// from sets the cause and its place.
func (e *EvalError) from(cause *topdown.Error) {
	e.cause = cause
	if cause.Location != nil {
		e.File, e.Line = cause.Location.File, cause.Location.Row
	}
}

// errorsOf names the functions that failed, each once, as file:line: text. Nil for none.
func errorsOf(failed []topdown.Error) []string {
	var out []string
	for i := range failed {
		text := strings.TrimPrefix(builtinError(&failed[i]).Error(), "policy: ")
		text = cutText(strings.Join(strings.Fields(text), " "), maxErrorText)
		if len(out) < maxErrors && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// cutText returns a copy of at most the first n bytes of a text, as UTF-8.
func cutText(s string, n int) string {
	if len(s) > n {
		s = s[:n] + "…"
	}
	return strings.ToValidUTF8(strings.Clone(s), "�")
}
