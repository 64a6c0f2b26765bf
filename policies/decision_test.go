package policies_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	rego "github.com/open-policy-agent/opa/v1/ast"
	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// references returns the paths below input that rules refer to. A part that is not a constant is "*".
func references(modules []*rego.Module) [][]string {
	var refs [][]string
	var visit func(t *rego.Term) bool
	visit = func(t *rego.Term) bool {
		ref, ok := t.Value.(rego.Ref)
		if !ok {
			return false
		}
		if ref.HasPrefix(rego.InputRootRef) {
			var path []string
			for _, part := range ref[1:] {
				if name, ok := part.Value.(rego.String); ok {
					path = append(path, string(name))
				} else {
					path = append(path, "*")
				}
			}
			refs = append(refs, path)
		}
		for _, part := range ref[1:] {
			rego.WalkTerms(part, visit)
		}
		return true
	}
	for _, m := range modules {
		rego.WalkTerms(m, visit)
	}
	return refs
}

// sees reports whether a rule that reads path sees something of part: part itself, what is in it, or what it is in.
func sees(path, part []string) bool {
	for i := range min(len(path), len(part)) {
		if path[i] != part[i] && path[i] != "*" {
			return false
		}
	}
	return true
}

// callersChoice are the parts of the input that a caller writes as it likes. Verdicts that depend on them cannot be used again, and a
// rule that reads them decides on another reading of the request than the table of routes.
var callersChoice = [][]string{
	{"attributes", "request"}, {"parsed_path"}, {"parsed_query"}, {"parsed_body"}, {"truncated_body"}, {"route", "params"},
}

func TestDecision_ReadsNothingThatCallersWrite(t *testing.T) {
	b, err := bundle.Compile(t.Context(), bundle.FS(policies.Files), bundle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	refs := references(b.Modules())
	for _, path := range refs {
		for _, part := range callersChoice {
			if sees(path, part) {
				t.Errorf("a rule reads input.%s, so it sees input.%s", strings.Join(path, "."), strings.Join(part, "."))
			}
		}
	}
	for _, part := range [][]string{{"path", "state"}, {"route", "state"}, {"route", "scopes"}, {"key", "status"}} {
		if !slices.ContainsFunc(refs, func(path []string) bool { return slices.Equal(path, part) }) {
			t.Errorf("no rule reads input.%s, or this test does not find it", strings.Join(part, "."))
		}
	}
}

// TestReferences_AreFound looks for references in each form that they may have.
func TestReferences_AreFound(t *testing.T) {
	for rule, want := range map[string]bool{
		`p if input.attributes.request.http.method == "GET"`: true,
		`p := input.route`: true,
		`p if { x := input.route; x.params.id == "1" }`:         true,
		`p := object.get(input, ["route", "params"], {})`:       true,
		`p if { some k; input.route[k] == 1 }`:                  true,
		`p if { some k; input[k] == 1 }`:                        true,
		`p if walk(input, [["parsed_path"], _])`:                true,
		`p := data.x[input.parsed_path[0]]`:                     true,
		`f(x) := x.host` + "\np := f(input.attributes.request)": true,
		`p := input.route.name`:                                 false,
		`p := input.attributes.contextExtensions.x`:             false,
	} {
		c := rego.NewCompiler()
		c.Compile(map[string]*rego.Module{"p.rego": rego.MustParseModule("package p\n" + rule)})
		if c.Failed() {
			t.Fatalf("%s: %v", rule, c.Errors)
		}
		got := slices.ContainsFunc(references([]*rego.Module{c.Modules["p.rego"]}), func(path []string) bool {
			return slices.ContainsFunc(callersChoice, func(part []string) bool { return sees(path, part) })
		})
		if got != want {
			t.Errorf("%s: sees what callers write: %t", rule, got)
		}
	}
}

// texts returns the constants of a type that authz/route.go declares.
func texts(t *testing.T, of string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../authz/route.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || fmt.Sprint(spec.Type) != of || len(spec.Values) != 1 {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, text)
		return true
	})
	if len(out) < 3 {
		t.Fatalf("authz/route.go has only %d constants of the type %s", len(out), of)
	}
	return slices.Sorted(slices.Values(out))
}

func TestSchema_HasTheStatesOfAuthz(t *testing.T) {
	type field struct {
		Enum       []string         `json:"enum"`
		Properties map[string]field `json:"properties"`
	}
	var schema field
	if err := json.Unmarshal(shipped(t, "schema/input.json"), &schema); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ part, name, of string }{
		{"path", "state", "PathState"}, {"path", "fault", "PathFault"}, {"route", "state", "RouteState"},
	} {
		got := slices.Sorted(slices.Values(schema.Properties[c.part].Properties[c.name].Enum))
		if want := texts(t, c.of); !slices.Equal(got, want) {
			t.Errorf("input.%s.%s is one of %q in the schema, and of %q in authz/route.go", c.part, c.name, got, want)
		}
	}
}

// load loads the shipped rules with those data files.
func load(t *testing.T, data ...string) *policy.Policy {
	t.Helper()
	files := fstest.MapFS{}
	for _, name := range append(data, rules(t)...) {
		files[name] = &fstest.MapFile{Data: shipped(t, name)}
	}
	p, err := policy.Load(t.Context(), bundle.FS(files), policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func decide(t *testing.T, p *policy.Policy, f *authz.Facts) authz.Verdict {
	t.Helper()
	v, err := p.Decide(t.Context(), &authz.Request{HTTP: &authz.HTTP{}}, f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// rules are the names of the modules without tests.
func rules(t *testing.T) []string {
	t.Helper()
	entries, err := policies.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".rego") && !strings.HasSuffix(e.Name(), "_test.rego") {
			names = append(names, e.Name())
		}
	}
	return names
}

// goodFacts are the facts about a caller with a good key, and no route.
func goodFacts() *authz.Facts {
	return &authz.Facts{
		Path:    authz.PathFact{State: authz.PathOK},
		Route:   authz.RouteFact{State: authz.RouteNone},
		Key:     authz.KeyFact{Status: authz.KeyActive, Plan: "free", Account: "acme"},
		Account: authz.AccountFact{ID: "acme", Status: authz.AccountActive, Plan: "free"},
		Quota:   []authz.QuotaFact{{Name: "rate", State: authz.QuotaOK}, {Name: "daily", State: authz.QuotaOK}},
	}
}

func TestForm_ExplainsEveryFaultOfAPath(t *testing.T) {
	p, said := load(t, "plans.yaml", "routes.yaml", "reasons.yaml"), make(map[string]bool)
	for _, fault := range texts(t, "PathFault") {
		f := goodFacts()
		f.Path = authz.PathFact{State: authz.PathMalformed, Fault: authz.PathFault(fault)}
		v := decide(t, p, f)
		if v.Allowed || v.Reason != authz.ReasonRequestMalformed {
			t.Errorf("%s: %+v", fault, v)
		}
		if said[v.Detail] || !strings.HasSuffix(v.Detail, ".") || len(v.Detail) > 80 {
			t.Errorf("%s: the detail %q is not a short sentence of its own", fault, v.Detail)
		}
		said[v.Detail] = true
	}
}

// TestUnmatched_ChargesUnlessTheDataSaysOtherwise has data of a folder that an older version made.
func TestUnmatched_ChargesUnlessTheDataSaysOtherwise(t *testing.T) {
	p, want := load(t, "plans.yaml", "reasons.yaml"), authz.Charge{"rate": 1, "daily": 1}
	if v := decide(t, p, goodFacts()); !v.Allowed || !maps.Equal(v.Charge, want) {
		t.Errorf("%+v", v)
	}
}

// TestFacts_ZeroDenies: facts that nobody has set are not a permission.
func TestFacts_ZeroDenies(t *testing.T) {
	p := load(t, "plans.yaml", "routes.yaml", "reasons.yaml")
	for reason, change := range map[authz.Reason]func(*authz.Facts){
		authz.ReasonRequestMalformed: func(f *authz.Facts) { f.Path = authz.PathFact{} },
		authz.ReasonPolicyError:      func(f *authz.Facts) { f.Route = authz.RouteFact{} },
	} {
		f := goodFacts()
		change(f)
		if v := decide(t, p, f); v.Allowed || v.Reason != reason {
			t.Errorf("want %s, got %+v", reason, v)
		}
	}
}
