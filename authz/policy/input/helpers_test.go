package input

import (
	"encoding/json"
	"testing"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
)

// refsOfRules compiles rules and returns what they refer to.
func refsOfRules(t testing.TB, rules string) *Refs {
	t.Helper()
	src := fstest.MapFS{"p.rego": {Data: []byte("package envoy.authz\n\n" + rules)}}
	b, err := bundle.Compile(t.Context(), bundle.FS(src), bundle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return RefsOf(b.Modules())
}

func mustValue(t testing.TB, refs *Refs, r *authz.Request, f *authz.Facts) ast.Value {
	t.Helper()
	v, err := Value(refs, r, f)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func jsonOf(t testing.TB, v ast.Value) string {
	t.Helper()
	plain, err := ast.JSON(v)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(plain)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
