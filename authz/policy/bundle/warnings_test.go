package bundle

import (
	"strings"
	"testing"
)

// asksCustomRules asks an operator's rules as the shipped policies do, and reads data that may be missing.
const asksCustomRules = `package envoy.authz

import data.lib.net
import data.tollkeeper.hook as custom_rules

default allow := false

allow if {
	count(custom_rules.deny) == 0
	net.inside(input.key.id)
	not input.key.environment == data.tollkeeper.environment
}
`

const customRules = `package tollkeeper.hook

deny contains x if some x in data.tollkeeper.custom.deny
`

const netLib = `package lib.net

inside(id) if id != ""

outside(id) if not inside(id)

is_set := true
`

func TestWarnings_NameWhatNoDecisionUses(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"a misspelt package":        {"c.rego", "package tollkeper.custom\n\ndeny contains 1 if input.key.id == \"x\"", "c.rego:1:1: package tollkeper.custom is not used by data.envoy.authz.allow: its rules decide nothing: did you mean package tollkeeper.custom?"},
		"a misspelt last part":      {"c.rego", "package tollkeeper.costum\n\ndeny contains 1 if input.key.id == \"x\"", "did you mean package tollkeeper.custom?"},
		"a misspelt constant":       {"c.rego", "package tollkeeper.custm\n\ndeny := {1}", "did you mean package tollkeeper.custom?"},
		"a misspelt rule":           {"c.rego", "package tollkeeper.custom\n\ndenny contains 1 if input.key.id == \"x\"", "c.rego:3:1: rule denny of package tollkeeper.custom is not used by data.envoy.authz.allow: it decides nothing: did you mean tollkeeper.custom.deny?"},
		"an allow":                  {"c.rego", "package tollkeeper.custom\n\nallow if input.key.id == \"x\"\n\ndeny contains 1 if input.key.id == \"y\"", "c.rego:3:1: rule allow of package tollkeeper.custom is not used by data.envoy.authz.allow: it decides nothing: the shipped policies read only deny"},
		"another package":           {"c.rego", "package acme.rules\n\ndeny contains 1 if input.key.id == \"x\"", "c.rego:1:1: package acme.rules is not used by data.envoy.authz.allow: its rules decide nothing"},
		"a rule next to the query":  {"c.rego", "package envoy.authz\n\nheaders := {} if input.key.id == \"x\"", "c.rego:3:1: rule headers of package envoy.authz is not used"},
		"data with a misspelt name": {"c.yaml", "tollkeeper: {enviroment: live}", "data.tollkeeper.enviroment is not used by data.envoy.authz.allow: did you mean data.tollkeeper.environment?"},
		"data of a misspelt root":   {"c.yaml", "tolkeeper: {environment: live}", "did you mean data.tollkeeper?"},
	} {
		p := mustCompile(t, files("a.rego", asksCustomRules, "r.rego", customRules, "n.rego", netLib, c.file, c.text), Options{})
		// The misspelt root is only seen if the right one does not exist, and any rule in it makes it exist.
		if name == "data of a misspelt root" {
			p = mustCompile(t, files("a.rego", "package envoy.authz\n\nallow if data.tollkeeper.environment == \"live\"", c.file, c.text), Options{})
		}
		if w := p.Warnings; len(w) != 1 || !strings.Contains(w[0].String(), c.want) {
			t.Errorf("%s: got %v, want %q", name, w, c.want)
		}
	}
}

func TestWarnings_LeaveAlone(t *testing.T) {
	for name, more := range map[string][]string{
		"an operator's rules":       {"c.rego", "package tollkeeper.custom\n\ndeny contains 1 if helper\n\nhelper if input.key.id == \"x\""},
		"a part of a library":       {"c.rego", "package lib.net\n\nmore(x) := x"},
		"tests next to the rules":   {"c.rego", "package tollkeeper.custom\n\ndeny contains 1 if input.key.id == \"x\"\n\ntest_x if deny"},
		"a package of tests":        {"c.rego", "package tollkeeper.custom_test\n\ntest_x if helper\n\nhelper := input"},
		"what tests share":          {"c.rego", "package tollkeeper.fixtures\n\ngood := input"},
		"constants":                 {"c.rego", "package countries\n\nnames := {\"de\": \"Germany\"}"},
		"data that Go or none read": {"c.yaml", "tollkeeper: {plans: {}, environment: live, mine: 1}\nother: {a: 1}"},
		"a library by a variable":   {"c.rego", "package tollkeeper.custom\n\ndeny contains 1 if data.checks[input.key.id].bad", "d.rego", "package checks.one\n\nbad if input.key.id != \"one\""},
		"an else":                   {"c.rego", "package tollkeeper.custom\n\ndeny contains v\n\nv := 1 if input.key.id == \"x\" else := helper\n\nhelper := 2 if input.key.id == \"y\""},
	} {
		p := mustCompile(t, files(append(more, "a.rego", asksCustomRules, "r.rego", customRules, "n.rego", netLib)...), Options{})
		if w := p.Warnings; len(w) > 0 {
			t.Errorf("%s: %v", name, w)
		}
	}
	// A query for a whole package uses all its rules.
	if w := mustCompile(t, files("a.rego", "package acme\n\nallow := true\n\nbody := \"x\""), Options{Query: "acme"}).Warnings; len(w) > 0 {
		t.Errorf("a package as the query: %v", w)
	}
}

func TestCustomRules_UnusableFormsAreFaults(t *testing.T) {
	_, err := Compile(t.Context(), files("a.rego", asksCustomRules, "r.rego", customRules, "n.rego", netLib, "c.rego", "package tollkeeper\n\nplans := {\"gold\": {}}"), Options{})
	if err == nil || err.Error() != "c.rego:3:1: tollkeeper.plans is a rule here but is read as data: move it to a .yaml or .json file" {
		t.Errorf("plans as a rule: %v", err)
	}
	for rules, want := range map[string]string{
		"deny(x) if x == 1": "c.rego:3:1: deny is a function here, and no rule calls it: write deny contains … if …",
		"deny contains 1 if input.key.id == \"x\"\n\ndeny if input.key.id == \"y\"": "c.rego:5:1: deny is written as \"deny := …\" here and as \"deny contains …\" in c.rego:3: write all of them with contains",
		"deny contains x if input.key.id == y":                                      "c.rego:3:",
	} {
		_, err := Compile(t.Context(), files("a.rego", asksCustomRules, "r.rego", customRules, "n.rego", netLib, "c.rego", "package tollkeeper.custom\n\n"+rules), Options{})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", rules, err, want)
		}
	}
}
