// Package storetest is what the contract suites of keys, revocations and quotas share.
package storetest

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Fixture is the test of one store. Each suite adds the store.
type Fixture struct{ *testing.T }

// Ctx is the test's context.
func (f Fixture) Ctx() context.Context { return f.Context() }

// Same fails the test unless two values are the same as JSON, which leaves out where a time is.
func (f Fixture) Same(what string, got, want any) {
	f.Helper()
	if g, w := Text(got), Text(want); g != w {
		f.Fatalf("%s is\n%s, want\n%s", what, g, w)
	}
}

// Refused fails the test unless the error is of that kind.
func (f Fixture) Refused(err error, kind authz.Kind) {
	f.Helper()
	if err == nil {
		f.Fatalf("no error, want one of kind %s", kind)
	}
	if authz.KindOf(err) != kind {
		f.Fatalf("error of kind %s, want %s: %v", authz.KindOf(err), kind, err)
	}
}

// Text is a value as JSON.
func Text(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(out)
}
