package policies_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/policies"
	"go.yaml.in/yaml/v3"
)

// reason is one entry of reasons.yaml.
type reason struct {
	Status map[string]int `yaml:"status"`
	Title  string         `yaml:"title"`
	Remedy string         `yaml:"remedy"`
	Retry  authz.Retry    `yaml:"retry"`
}

// table is the content of reasons.yaml.
type table struct {
	Profile    string            `yaml:"profile"`
	Precedence []string          `yaml:"precedence"`
	Reasons    map[string]reason `yaml:"reasons"`
}

// undecided reports whether a reason says that we could not decide. These have their own places in the precedence.
func undecided(code string) bool {
	switch authz.Reason(code) {
	case authz.ReasonPolicyError, authz.ReasonStoreUnavailable, authz.ReasonStateStale, authz.ReasonDecisionTimeout,
		authz.ReasonTokenStatusUnknown:
		return true
	}
	return false
}

func shipped(t *testing.T, name string) []byte {
	t.Helper()
	b, err := fs.ReadFile(policies.Files, name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readTable(t *testing.T) table {
	t.Helper()
	var doc struct {
		Tollkeeper table `yaml:"tollkeeper"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(shipped(t, "reasons.yaml")))
	dec.KnownFields(true)
	if err := dec.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc.Tollkeeper
}

// constants returns the codes that authz/reason.go declares, in its order.
func constants(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../authz/reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Reason") || len(spec.Values) != 1 {
			return true
		}
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		codes = append(codes, code)
		return true
	})
	if len(codes) < 30 {
		t.Fatalf("found only %d reasons in authz/reason.go", len(codes))
	}
	return codes
}

func TestReasons_AreTheConstantsOfAuthz(t *testing.T) {
	tab, want := readTable(t), slices.Sorted(slices.Values(constants(t)))
	if got := slices.Sorted(maps.Keys(tab.Reasons)); !slices.Equal(got, want) {
		t.Errorf("reasons.yaml has texts for\n%v, authz/reason.go declares\n%v", got, want)
	}
	if got := slices.Sorted(slices.Values(tab.Precedence)); !slices.Equal(got, want) {
		t.Errorf("reasons.yaml has an order of\n%v, authz/reason.go declares\n%v", got, want)
	}
}

func TestPrecedence_IsTheOrderInAuthz(t *testing.T) {
	got := slices.DeleteFunc(readTable(t).Precedence, undecided)
	want := slices.DeleteFunc(constants(t), undecided)
	if !slices.Equal(got, want) {
		t.Errorf("order of reasons in reasons.yaml:\n%v\nin authz/reason.go:\n%v", got, want)
	}
}

func TestReasons_StatusesKeepTheContract(t *testing.T) {
	allowed := map[string][]int{
		"strict":  {402, 403},
		"article": {402, 403},
		"rfc":     {400, 401, 402, 403, 404, 429, 500, 503},
	}
	// The only reasons with a remedy of money, plan, balance or the next period.
	payable := []string{
		"payment_overdue", "subscription_expired", "plan_upgrade_required",
		"quota_exceeded", "credits_exhausted", "credits_insufficient",
	}
	tab := readTable(t)
	if tab.Profile != "strict" {
		t.Errorf("the shipped profile is %q", tab.Profile)
	}
	for code, r := range tab.Reasons {
		if got, want := slices.Sorted(maps.Keys(r.Status)), slices.Sorted(maps.Keys(allowed)); !slices.Equal(got, want) {
			t.Errorf("%s: profiles %v, want %v", code, got, want)
		}
		for profile, status := range r.Status {
			if !slices.Contains(allowed[profile], status) {
				t.Errorf("%s: status %d in profile %s", code, status, profile)
			}
			if undecided(code) && status == 402 {
				t.Errorf("%s: 402 in profile %s, but callers cannot pay for our faults", code, profile)
			}
		}
		if got := r.Status["strict"] == 402; got != slices.Contains(payable, code) {
			t.Errorf("%s: status %d in profile strict", code, r.Status["strict"])
		}
	}
}

func TestReasons_TextsAreComplete(t *testing.T) {
	for code, r := range readTable(t).Reasons {
		if !authz.ValidReason(code) {
			t.Errorf("%q is not a reason code", code)
		}
		if r.Title == "" || strings.HasSuffix(r.Title, ".") {
			t.Errorf("%s: title %q, want words without a full stop", code, r.Title)
		}
		if !strings.HasSuffix(r.Remedy, ".") || strings.Count(r.Remedy, ".") != 1 {
			t.Errorf("%s: remedy %q, want one sentence", code, r.Remedy)
		}
		if r.Retry != authz.RetryNever && r.Retry != authz.RetryReset && r.Retry != authz.RetrySoon {
			t.Errorf("%s: retry %q", code, r.Retry)
		}
	}
}

var update = flag.Bool("update", false, "write the reasons in README.md anew")

// TestManual_ListsTheReasons compares the reference in README.md, which is written out so that people can search it.
func TestManual_ListsTheReasons(t *testing.T) {
	tab := readTable(t)
	var want strings.Builder
	for _, code := range tab.Precedence {
		r := tab.Reasons[code]
		fmt.Fprintf(&want, "\n### %s\n\n%s. %s\n\nStatus %d (strict), %d (article), %d (rfc). Retry: %s.\n",
			code, r.Title, r.Remedy, r.Status["strict"], r.Status["article"], r.Status["rfc"], r.Retry)
	}
	before, got, found := strings.Cut(string(shipped(t, "README.md")), "\n## Reasons\n")
	if !found {
		t.Fatal("README.md has no section of reasons")
	}
	if *update {
		if err := os.WriteFile("README.md", []byte(before+"\n## Reasons\n"+want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != want.String() {
		t.Error("the reasons in README.md are not those of reasons.yaml: run\n\tgo test ./policies -run TestManual -update")
	}
}

func TestFiles_AreEmbedded(t *testing.T) {
	for _, name := range []string{"authz.rego", "reasons_test.rego", "plans.yaml", "routes.yaml", "schema/input.json"} {
		if len(shipped(t, name)) == 0 {
			t.Errorf("%s is empty", name)
		}
	}
}
