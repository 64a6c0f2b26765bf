package policy

import (
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// TestEvaluator_Unsupported has the rules that the manual of the policies names as not compiled. The detail begins with their place.
func TestEvaluator_Unsupported(t *testing.T) {
	for name, c := range map[string]struct{ rules, place string }{
		"packages by a variable": {"default allow := false\n\nallow if not data.a[input.key.id]", "p.rego:5: data.envoy.authz.allow: "},
		"negated comparison":     {"default allow := false\n\nallow if not [input.a] == [input.b]", "p.rego:5: "},
		"negated objects":        {"default allow := false\n\nallow if not {\"a\": input.a} == {\"a\": input.b}", "p.rego:5: "},
		"unused comprehension":   {"default allow := false\n\nallow if [x | some x in input.list]", "p.rego:5: "},
		"number in a name":       {"default allow := false\n\nallow if p[1][2]\n\np[1] contains x if some x in [1, 2]", "p.rego:7: "},
		"shared name":            {"default allow := false\n\nallow if p.b.c\n\np.a.b := 1 if input.x\n\np[x].c := y if {\n\tsome x in [\"b\"]\n\ty := p.a.b\n}", "p.rego:11: "},
	} {
		p := mustLoad(t, files("p.rego", "package envoy.authz\n\n"+c.rules, "a.rego", "package a.b\n\nx := 1", "b.rego", "package a.c\n\nx := 1"), Options{})
		if e := p.Evaluator(); e.Reason != Unsupported || !strings.HasPrefix(e.Detail, c.place) {
			t.Errorf("%s: %v, want %s", name, e, c.place)
		}
	}
	if e := mustLoad(t, bundle.FS(policies.Files), Options{}).Evaluator(); !e.Compiled() {
		t.Errorf("the shipped policies: %v", e)
	}
}
