package rulebook

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
)

const allowNothing = "package envoy.authz\n\ndefault allow := false\n"

// policyOf writes files to a directory: pairs of name and content.
func policyOf(t *testing.T, nameAndContent ...string) (dir string, cfg config.Policy) {
	t.Helper()
	dir = t.TempDir()
	for i := 0; i < len(nameAndContent); i += 2 {
		name := filepath.Join(dir, nameAndContent[i])
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(nameAndContent[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, config.Policy{Paths: []string{dir}}
}

// faultsOf checks policies, and returns the faults without the directory.
func faultsOf(t *testing.T, nameAndContent ...string) string {
	t.Helper()
	dir, cfg := policyOf(t, nameAndContent...)
	_, err := Check(t.Context(), cfg, nil)
	var load *bundle.LoadError
	if err != nil && !errors.As(err, &load) {
		t.Fatalf("no fault of the policies: %v", err)
	}
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(err.Error(), dir+"/", "")
}

// TestCheck_ReasonsTable holds that tables which would tell callers something wrong are refused, with their place.
func TestCheck_ReasonsTable(t *testing.T) {
	for table, want := range map[string]string{
		"{key_expired: {status: {strict: 200}}}":               `1:47: reason "key_expired": want a status from 400 to 599 for the profile "strict"`,
		"{policy_error: {status: {strict: 402}}}":              `1:48: reason "policy_error": 402 would ask the caller to pay for a fault of ours`,
		"{key_expired: {status: {rfc: 401}}}":                  `1:38: reason "key_expired": want a status from 400 to 599 for the profile "strict"`,
		"{'Key Expired': {status: {strict: 403}}}":             `1:24: reason "Key Expired": want 3 to 64 lower-case letters, digits and _ as a code`,
		"{key_expired: {status: {strict: 403}, retry: maybe}}": `1:61: reason "key_expired": retry "maybe": want never, reset or soon`,
		"[]": `1:14: reasons: want an object of reasons by code`,
	} {
		if got := faultsOf(t, "a.rego", allowNothing, "r.yaml", "tollkeeper: {reasons: "+table+"}\n"); got != "r.yaml:"+want {
			t.Errorf("%s:\ngot  %s\nwant %s", table, got, want)
		}
	}
}

// TestCheck_AllFaultsAtOnce holds that faults of plans, reasons and routes are reported together, each where it is written.
func TestCheck_AllFaultsAtOnce(t *testing.T) {
	got := faultsOf(t, "a.rego", allowNothing,
		"tollkeeper/plans/p.yaml", "free:\n  limits:\n    rate: {units: 1, window: minute}\n    daily: {unit: x}\npro: 7\n",
		"reasons.json", "{\"tollkeeper\": {\"reasons\": {\n\t\"mine\": 1}}}",
		"routes.yaml", `tollkeeper:
  unmatched: perhaps
  paths: {case: lower}
  routes:
    - {match: {path: /a}, scope: [x]}
    - match: {path: /b}
      plans: [gold, pro]
      charge: {daily: 1, weekly: 2}
`)
	want := `tollkeeper/plans/p.yaml:4:5: plan "free": limit "daily": units: want a number from 0 to 9007199254740992
tollkeeper/plans/p.yaml:4:5: plan "free": limit "daily": window "": want one of [second minute hour day month none]
tollkeeper/plans/p.yaml:5:1: plan "pro": want an object with limits
reasons.json:2:2: reason "mine": want an object with status, title, remedy and retry
routes.yaml:3:11: case: want fold or exact
routes.yaml:2:3: unmatched: want charge, allow or deny
routes.yaml:5:27: scope is no field here: did you mean scopes?
routes.yaml:7:15: plan "gold" does not exist
routes.yaml:8:16: charge: none of the plans gold, pro has a limit "daily"
routes.yaml:8:26: charge: none of the plans gold, pro has a limit "weekly"`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestCheck_WithoutData holds that policies for OPA's plugin need no data of ours.
func TestCheck_WithoutData(t *testing.T) {
	for name, data := range map[string]string{"nothing": "{}", "an empty object": "tollkeeper: {}", "null": "tollkeeper: {routes: null, plans: null, paths: null, unmatched: null}"} {
		if got := faultsOf(t, "a.rego", allowNothing, "d.yaml", data); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
	_, cfg := policyOf(t, "a.rego", allowNothing)
	r, err := LoadRoutes(t.Context(), cfg)
	if err != nil || r.Table == nil || len(r.Routes()) > 0 || r.Unmatched != "charge" {
		t.Errorf("the table is %+v, %v", r, err)
	}
}

// TestCheck_DataAsRules holds that what the server reads as data is not defined by rules, which it would not see.
func TestCheck_DataAsRules(t *testing.T) {
	for rules, want := range map[string]string{
		"package tollkeeper\n\nroutes := []":                     "r.rego:3:1: tollkeeper.routes",
		"package tollkeeper\n\nunmatched := \"deny\" if input.x": "r.rego:3:1: tollkeeper.unmatched",
		"package tollkeeper.paths\n\ncase := \"exact\"":          "r.rego:3:1: tollkeeper.paths.case",
		"package tollkeeper\n\nplans.free.limits := {}":          "r.rego:3:1: tollkeeper.plans",
	} {
		if got := faultsOf(t, "a.rego", allowNothing, "r.rego", rules+"\n"); !strings.HasPrefix(got, want+" is a rule here but is read as data") {
			t.Errorf("%s: got %s", rules, got)
		}
	}
}

// TestCheck_MisplacedData holds that a table under a wrong name is no table, and said to be none.
func TestCheck_MisplacedData(t *testing.T) {
	const asks = "package envoy.authz\n\nimport data.tollkeeper.hook\n\ndefault allow := false\n\nallow if not hook.deny\n\nallow if data.plans[input.version]\n\nallow if data.tollkeeper.path\n"
	const hook = "package tollkeeper.hook\n\ndeny if input.version\n"
	for data, want := range map[string]string{
		"tollkeeper: {route: []}":                    "d.yaml:1:14: nothing reads tollkeeper.route: write tollkeeper.routes",
		"tollkeeper:\n  unmached: deny":              "d.yaml:2:3: nothing reads tollkeeper.unmached: write tollkeeper.unmatched",
		"tollkeeper: {Plans: {}}":                    "d.yaml:1:14: nothing reads tollkeeper.Plans: write tollkeeper.plans",
		"tolkeeper: {routes: []}":                    "d.yaml:1:1: nothing reads tolkeeper: write tollkeeper",
		"other: 1\nroutes: []":                       "d.yaml:2:1: nothing reads routes: write tollkeeper.routes",
		"unmatched: deny":                            "d.yaml:1:1: nothing reads unmatched: write tollkeeper.unmatched",
		"tollkeeper: {routes: }":                     "d.yaml:1:14: routes has no value: write one, or remove the name",
		"tollkeeper:\n  unmatched:\n  paths:":        "d.yaml:3:3: paths has no value: write one, or remove the name\nd.yaml:2:3: unmatched has no value: write one, or remove the name",
		"plans: {}":                                  "", // a rule reads it
		"tollkeeper: {path: 1}":                      "",
		"tollkeeper: {environment: live, mine: {}}":  "",
		"paths: 1\nmine: {routes: []}\nkeeper: {}\n": "",
	} {
		if got := faultsOf(t, "a.rego", asks, "h.rego", hook, "d.yaml", data); got != want {
			t.Errorf("%s: got %q, want %q", data, got, want)
		}
	}
	if got := faultsOf(t, "a.rego", allowNothing, "d.yaml", "routes: []"); got != "" {
		t.Errorf("the data of other policies: %s", got)
	}
}

// TestCheck_DataInFolders holds that a file with all names, in a folder whose name is part of the path as well, is not lost.
func TestCheck_DataInFolders(t *testing.T) {
	const table = "tollkeeper:\n  routes: [{match: {path: /a}, scopes: [x]}]\n"
	for file, want := range map[string]string{
		"routes.yaml":            "",
		"data/routes.yaml":       "data/routes.yaml:2:3: nothing reads data.tollkeeper.routes: write tollkeeper.routes, in a file that is in no folder",
		"a/b/routes.yaml":        "a/b/routes.yaml:2:3: nothing reads a.b.tollkeeper.routes: write tollkeeper.routes, in a file that is in no folder",
		"tollkeeper/routes.yaml": "tollkeeper/routes.yaml:2:3: nothing reads tollkeeper.tollkeeper.routes: write tollkeeper.routes: the folder has that name already",
	} {
		rules := "package envoy.authz\n\nimport data.tollkeeper.hook\n\ndefault allow := false\n\nallow if not hook.deny\n"
		if got := faultsOf(t, "a.rego", rules, "h.rego", "package tollkeeper.hook\n\ndeny if input.version\n", file, table); got != want {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
}

// TestCheck_LargeNumberInJSON holds that a fault has its place in a JSON file with a number that no machine holds.
func TestCheck_LargeNumberInJSON(t *testing.T) {
	got := faultsOf(t, "a.rego", allowNothing, "r.json", "{\"tollkeeper\": {\n\"routes\": [{\"name\": \"a\", \"charge\": {\"c\": 1e400}}]}}")
	if want := `r.json:2:37: charge of "c": want a whole number from 0 to 9007199254740992`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestCheck_Documents reads the operations of a document as routes, and its faults at its lines.
func TestCheck_Documents(t *testing.T) {
	const (
		table = "tollkeeper: {routes: [{name: all, match: {path: \"/**\"}, scopes: [x]}, {openapi: api/v1.yaml}]}"
		api   = "openapi: 3.0.3\npaths:\n  /a:\n    $ref: parts.yaml#/a\n"
		parts = "a:\n  get:\n    operationId: a\n    security: []\n    x-tollkeeper: {public: true}\n    responses: {}\n"
	)
	_, cfg := policyOf(t, "a.rego", allowNothing, "routes.yaml", table, "api/v1.yaml", api, "api/parts.yaml", parts)
	r, err := LoadRoutes(t.Context(), cfg)
	if err != nil || len(r.Routes()) != 2 || r.Routes()[0].Name != "a" || !r.Routes()[0].Public {
		t.Fatalf("got %+v, %v", r, err)
	}
	if len(r.Warnings) > 0 { // operations never had an order
		t.Errorf("got %v", r.Warnings)
	}
	for _, c := range []struct{ file, text, want string }{
		{"api/parts.yaml", strings.Replace(parts, "public: true", "plans: [gold]", 1), `api/parts.yaml:2: plan "gold" does not exist`},
		{"api/parts.yaml", strings.Replace(parts, "security", "securty", 1), `api/parts.yaml:4: securty is no field here`},
		{"api/v1.yaml", strings.Replace(api, "parts.yaml#", "part.yaml#", 1), `api/v1.yaml:4: there is no file "`},
		{"api/v1.yaml", "openapi: 3.0.3\npaths: {}\n", `routes.yaml:1:72: api/v1.yaml has no operations`},
	} {
		got := faultsOf(t, "a.rego", allowNothing, "routes.yaml", table, "api/v1.yaml", api, "api/parts.yaml", parts, c.file, c.text)
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: got %s, want %s", c.text, got, c.want)
		}
	}
}
