package authz

import (
	"errors"
	"fmt"
)

// Kind is the kind of an error, for code that reacts to it. Each transport maps kinds to its own codes, in one place.
type Kind string

// The kinds of error.
const (
	KindNotFound    Kind = "not_found"
	KindExists      Kind = "exists"      // it exists already
	KindConflict    Kind = "conflict"    // its state forbids it
	KindInvalid     Kind = "invalid"     // the caller must change the request
	KindUnavailable Kind = "unavailable" // try again later
)

// Error is an error with a kind. Its text is one sentence for a person: in lower case, without "failed to", with outside data in
// quotes.
type Error struct {
	Kind  Kind
	Text  string
	cause error
}

// Errorf makes an error of that kind. As in fmt.Errorf, the verb %w names the cause.
func Errorf(kind Kind, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Text: err.Error(), cause: errors.Unwrap(err)}
}

func (e *Error) Error() string { return e.Text }

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// KindOf returns the kind of the outermost Error in err's chain. If there is none, it returns KindUnavailable: an error without
// a kind is not the caller's fault. Of nil it returns "".
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindUnavailable
}
