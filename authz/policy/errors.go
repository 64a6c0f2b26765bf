package policy

import "fmt"

// Codes of an EvalError that OPA has no code for. OPA's own begin with "eval_".
const (
	codeUndefined = "undefined"
	codeDecision  = "invalid_decision"
	codeInput     = "invalid_input"
	codePanic     = "panic"
)

// EvalError says why a policy gave no verdict. It is for the log: its text may show parts of the policy and of the
// request, so it must not reach the caller.
type EvalError struct {
	Code string // for machines, such as eval_conflict_error, undefined or invalid_decision
	File string // where in the policy, empty if unknown
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
