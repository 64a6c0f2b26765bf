package policy

import (
	"errors"
	"testing"
	"testing/fstest"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input/inputtest"
)

// files makes a source of file names and contents: files("a.rego", "package a", "b.json", "{}").
func files(nameAndContent ...string) bundle.Source {
	m := fstest.MapFS{}
	for i := 0; i < len(nameAndContent); i += 2 {
		m[nameAndContent[i]] = &fstest.MapFile{Data: []byte(nameAndContent[i+1])}
	}
	return bundle.FS(m)
}

// module is a source with one module, in the package that decides by default.
func module(rules string) bundle.Source { return files("p.rego", "package envoy.authz\n\n"+rules) }

func mustLoad(t testing.TB, src bundle.Source, o Options) *Policy {
	t.Helper()
	p, err := Load(t.Context(), src, o)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return p
}

func mustDecide(t testing.TB, p *Policy, r *authz.Request, f *authz.Facts) authz.Verdict {
	t.Helper()
	v, err := p.Decide(t.Context(), r, f, nil)
	if err != nil {
		t.Fatalf("decide: %v", err)
	}
	return v
}

func get(path string) *authz.Request { return inputtest.Get(path) }

func goodFacts() *authz.Facts { return inputtest.ActiveKey() }

func wantEvalError(t *testing.T, err error, code string) *EvalError {
	t.Helper()
	var e *EvalError
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want an EvalError with code %s", err, code)
	}
	if e.Code != code {
		t.Fatalf("got code %s (%v), want %s", e.Code, e, code)
	}
	return e
}

// wantSame fails the test if a repeated decision differs or is not finished.
func wantSame(t testing.TB) func(RecheckResult, *Difference) {
	return func(r RecheckResult, d *Difference) {
		if r != Same {
			t.Errorf("%s: %+v", r, d)
		}
	}
}
