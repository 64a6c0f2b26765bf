package authz

import (
	"errors"
	"fmt"
)

// Kind is what went wrong, for code that has to react to it. Each transport maps kinds to its own codes, once.
type Kind string

// The kinds of error.
const (
	KindNotFound    Kind = "not_found"
	KindExists      Kind = "exists"      // there is one already
	KindConflict    Kind = "conflict"    // the state of the thing forbids it
	KindInvalid     Kind = "invalid"     // the caller has to change what was asked
	KindUnavailable Kind = "unavailable" // try again later
)

// Error is an error that has a kind. Its text is one sentence for a person: lower case, without "failed to", outside
// data in quotes.
type Error struct {
	Kind  Kind
	Text  string
	cause error
}

// Errorf makes an error of that kind. A %w verb names the cause, as with fmt.Errorf.
func Errorf(kind Kind, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Text: err.Error(), cause: errors.Unwrap(err)}
}

func (e *Error) Error() string { return e.Text }

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// KindOf returns the kind of the outermost Error in err's chain, or KindUnavailable if there is none: an error that
// nobody classified is our fault and not the caller's.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindUnavailable
}
