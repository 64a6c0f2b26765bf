package rulebook

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// filesOf reads the files of a folder that decide, and puts others over them: pairs of name and content. Empty content removes.
func filesOf(t *testing.T, from fs.FS, over ...string) []string {
	t.Helper()
	all := make(map[string]string)
	names, err := fs.Glob(from, "*.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		raw, err := fs.ReadFile(from, name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".rego") && !strings.HasSuffix(name, "_test.rego") {
			all[name] = string(raw)
		}
	}
	for i := 0; i < len(over); i += 2 {
		if all[over[i]] = over[i+1]; over[i+1] == "" {
			delete(all, over[i])
		}
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, name, all[name])
	}
	return out
}

// olderFolder is a folder that "policy init" of an older version wrote.
func olderFolder() fs.FS { return os.DirFS("testdata/older") }

// warningsOf checks policies without faults, and returns the warnings without the directory.
func warningsOf(t *testing.T, nameAndContent ...string) string {
	t.Helper()
	dir, cfg := policyOf(t, nameAndContent...)
	s, err := Check(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, w := range s.Warnings {
		out = append(out, strings.ReplaceAll(w.String(), dir+"/", ""))
	}
	return strings.ReplaceAll(strings.Join(out, "\n"), dir, "DIR")
}

func shippedFile(t *testing.T, name string) string {
	t.Helper()
	raw, err := policies.Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestOlderFiles_GoOn(t *testing.T) {
	want := "route.rego:13:9: this file is of an older version: it takes the first route that matches, and knows no {name}, paths or unmatched; " +
		"replace the shipped files: tollkeeper policy init --upgrade DIR"
	if got := warningsOf(t, filesOf(t, olderFolder())...); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, from := range []fs.FS{policies.Files, olderFolder()} {
		if got := faultsOf(t, filesOf(t, from, "custom.rego", "package tollkeeper.custom\n\ndeny if data.tollkeeper.environment == input.route.name\n")...); got != "" {
			t.Errorf("a rule of the operator: %s", got)
		}
	}
	if got := warningsOf(t, filesOf(t, policies.Files)...); got != "" {
		t.Errorf("the files of this version: %s", got)
	}
}

// TestOlderFiles_RefuseWhatTheyCannotRead holds that a table means the same to the older rules, or is refused.
func TestOlderFiles_RefuseWhatTheyCannotRead(t *testing.T) {
	const route = "tollkeeper:\n  routes:\n    "
	for routes, want := range map[string]string{
		route + "- {match: {path: \"/v1/{id}\"}}":                                                     `routes.yaml:3:16: route.rego is of an older version, which reads {name} as plain text`,
		route + "- {match: {path: \"/v1/{id}:cancel\"}}":                                              `routes.yaml:3:16: route.rego is of an older version, which reads {name} as plain text`,
		route + "- {match: {path: /a, hosts: [a.b, \"*.c\"]}}":                                        `routes.yaml:3:39: route.rego is of an older version, which reads *. as plain text`,
		route + "- openapi: api.yaml":                                                                 `routes.yaml:3:7: route.rego is of an older version, which reads no documents`,
		"tollkeeper: {unmatched: deny}":                                                               `routes.yaml:1:14: route.rego is of an older version, which does not know unmatched`,
		"tollkeeper: {unmatched: charge}":                                                             ``,
		"tollkeeper: {paths: {case: exact}}":                                                          `routes.yaml:1:14: route.rego is of an older version, which does not know paths`,
		route + "- {match: {path: \"/a/**\"}, scopes: [x]}\n    - {match: {path: /a/b}}":              `routes.yaml:4:7: route.rego is of an older version, which takes the first route that matches: it would never take "/a/b", because "/a/**" stands above it`,
		route + "- {match: {path: \"/a/**\"}, scopes: [x]}\n    - {match: {path: /a/b}, scopes: [x]}": ``,
		route + "- {match: {path: /a/b}}\n    - {match: {path: \"/a/**\"}, scopes: [x]}":              ``,
		route + "- {match: {path: \"/a/*\", methods: [GET], hosts: [a.b]}}":                           ``,
	} {
		got := faultsOf(t, filesOf(t, olderFolder(), "routes.yaml", routes, "api.yaml", "openapi: 3.0.0\npaths: {/a: {get: {responses: {}}}}")...)
		if want != "" {
			want += "; replace the shipped files: tollkeeper policy init --upgrade "
		}
		if !strings.HasPrefix(got, want) || strings.Contains(got, "\n") || want == "" && got != "" {
			t.Errorf("%s:\ngot  %s\nwant %s", routes, got, want)
		}
	}
}

// TestOlderFiles_Mixed holds that no file of one version is used beside those of the other where that would skip a rule.
func TestOlderFiles_Mixed(t *testing.T) {
	older := func(name string) string {
		raw, err := fs.ReadFile(olderFolder(), name)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	bad := 0
	for _, name := range []string{"account", "authz", "caller", "charge", "custom_rules", "form", "key", "payment", "permission", "quota", "route", "token"} {
		name += ".rego"
		if older(name) == shippedFile(t, name) {
			continue
		}
		newer := faultsOf(t, filesOf(t, policies.Files, name, older(name), "routes.yaml", "{}")...)
		inOlder := faultsOf(t, filesOf(t, olderFolder(), name, shippedFile(t, name))...)
		if readsRoute := strings.Contains(older(name), "route.rule"); readsRoute && name != "route.rego" &&
			(!strings.Contains(newer, name+":") || !strings.Contains(newer, "does not exist: this file is of another version") || inOlder == "") {
			t.Errorf("%s: an older one among newer: %q; a newer one among older: %q", name, newer, inOlder)
		} else if readsRoute {
			bad++
		}
		if name == "route.rego" && (newer == "" || !strings.Contains(inOlder, "data.tollkeeper.route.rule does not exist")) {
			t.Errorf("%s: an older one among newer: %q; a newer one among older: %q", name, newer, inOlder)
		}
	}
	if bad < 5 {
		t.Errorf("only %d files were tried", bad)
	}
}

// TestReferences_ToWhatIsGone holds that an operator's rule is not skipped because a rule of ours has another name now.
func TestReferences_ToWhatIsGone(t *testing.T) {
	for body, want := range map[string]string{
		`data.tollkeeper.route.rule.name == "x"`:                       `data.tollkeeper.route.rule does not exist: write input.route.name`,
		`data.tollkeeper.route.rule`:                                   `data.tollkeeper.route.rule does not exist: write input.route`,
		`some s in data.tollkeeper.route.rule.scopes; s == "x"`:        `data.tollkeeper.route.rule does not exist: write input.route.scopes`,
		`startswith(data.tollkeeper.route.path, "/x")`:                 `data.tollkeeper.route.path does not exist: write input.route, or input.parsed_path`,
		`[x | x := data.tollkeeper.form.path] == []`:                   `data.tollkeeper.form.path does not exist: write input.route, or input.parsed_path`,
		`not data.tollkeeper.key.good`:                                 `data.tollkeeper.key.good does not exist: it would be undefined, and this rule skipped in silence`,
		`helper(1)`:                                                    `data.tollkeeper.route.name does not exist: write input.route.name`,
		`count(data.tollkeeper.form.deny) > 0`:                         ``,
		`data.tollkeeper.route.public`:                                 ``,
		`data.tollkeeper.caller.holds("x")`:                            ``,
		`data.tollkeeper.payment.details.anything`:                     ``,
		`data.tollkeeper.environment == "x"`:                           ``,
		`data.tollkeeper.mine.rule`:                                    ``,
		`data.tollkeeper.custom.more`:                                  ``,
		`some name; data.tollkeeper[name].rule; name == "x"`:           ``,
		`some name; data.tollkeeper.quota[name]; name == "x"`:          ``,
		`r := data.tollkeeper.route; r.rule.name == "x"`:               `data.tollkeeper.route has lost rules, and which of them is read here cannot be seen: write input.route, input.path or the whole name of the rule`,
		`object.get(data.tollkeeper.route, "rule", {}).name == "x"`:    `data.tollkeeper.route has lost rules, and which of them is read here cannot be seen: write input.route, input.path or the whole name of the rule`,
		`x := "rule"; data.tollkeeper.route[x].name == "x"`:            `data.tollkeeper.route has lost rules, and which of them is read here cannot be seen: write input.route, input.path or the whole name of the rule`,
		`r := data.tollkeeper.form; r.path == "/x"`:                    `data.tollkeeper.form has lost rules, and which of them is read here cannot be seen: write input.route, input.path or the whole name of the rule`,
		`"route_unknown" in data.tollkeeper.route.deny`:                ``,
		`data.acme.route.rule`:                                         ``,
		`input.key.meta.route == "data.tollkeeper.route.rule"`:         ``,
		`data.tollkeeper.plans[input.key.plan].limits.rate.units == 7`: ``,
	} {
		rules := "package tollkeeper.custom\n\ndeny if {\n\t" + body + "\n}\n"
		if strings.HasPrefix(body, "helper") {
			rules += "\nhelper(x) := 1 if x == 2\n\nelse := 2 if data.tollkeeper.route.name\n"
		}
		got := faultsOf(t, filesOf(t, policies.Files, "custom.rego", rules)...)
		if want == "" && got != "" || want != "" && !regexp.MustCompile(`^custom\.rego:\d+:\d+: `+regexp.QuoteMeta(want)+`$`).MatchString(got) {
			t.Errorf("%s: got %q, want %q", body, got, want)
		}
	}
	if got := faultsOf(t, filesOf(t, policies.Files, "lib.rego", "package acme\n\nunused if data.tollkeeper.route.rule\n")...); got != "" {
		t.Errorf("a rule that no decision uses: %s", got)
	}
}

func TestShippedPackages_AreAll(t *testing.T) {
	names, err := fs.Glob(policies.Files, "*.rego")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		m := regexp.MustCompile(`(?m)^package tollkeeper\.(\w+)`).FindStringSubmatch(shippedFile(t, name))
		if m != nil && !strings.HasSuffix(name, "_test.rego") && !slices.Contains(shippedPackages, m[1]) {
			t.Errorf("%s: the package %s is not listed", name, m[1])
		}
	}
}

// TestOrder_WarnsOfWhatOpens holds that a route which comes to apply although it stands below one that matches all that it matches
// is a warning if it asks for less, and only then.
func TestOrder_WarnsOfWhatOpens(t *testing.T) {
	for _, c := range []struct{ above, below, want string }{
		{"scopes: [a, b]", "scopes: [a]", "needs fewer scopes"},
		{"scopes: [a]", "scopes: [b]", "needs fewer scopes"},
		{"scopes: [a]", "scopes: [b, a]", ""},
		{"scopes: [a]", "public: true", "is public"},
		{"public: true", "scopes: [a]", ""},
		{"public: true", "public: true", ""},
		{"plans: [pro]", "plans: [pro, free]", "is for more plans"},
		{"plans: [pro]", "scopes: [a]", "is for more plans"},
		{"plans: [pro, free]", "plans: [pro]", ""},
		{"environment: live", "environment: test", "is for other environments"},
		{"environment: live", "name: x", "is for other environments"},
		{"name: x", "environment: live", ""},
		{"key: required", "token: required", "takes a token for a key"},
		{"token: required", "key: required", "needs no token"},
		{"charge: {rate: 2}", "charge: {rate: 1}", "costs less"},
		{"charge: {rate: 2}", "name: x", "costs less"},
		{"charge: {rate: 1}", "name: x", ""},
		{"charge: {rate: 1}", "charge: {rate: 1, daily: 1}", ""},
		{"name: x", "charge: {}", "costs less"},
		{"name: x", "charge: {rate: 0}", "costs less"},
		{"name: x", "charge: {rate: 1}", ""},
		{"name: x", "environment: live", ""},
	} {
		above, below := `{match: {path: "/a/**"}, `+c.above+"}", `{match: {path: "/a/{b}", methods: [GET]}, `+c.below+"}"
		table := func(first, second string) []string {
			return filesOf(t, policies.Files, "routes.yaml", fmt.Sprintf("tollkeeper:\n  routes:\n    - %s\n    - %s\n", first, second))
		}
		got := warningsOf(t, table(above, below)...)
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") || got != "" && !strings.HasPrefix(got, "routes.yaml:4:7: route \"") {
			t.Errorf("%s above %s: got %q, want %q", c.above, c.below, got, c.want)
		}
		if got := warningsOf(t, table(below, above)...); got != "" {
			t.Errorf("%s below %s: got %q", c.above, c.below, got)
		}
	}
	got := warningsOf(t, filesOf(t, policies.Files, "routes.yaml", "tollkeeper:\n  routes:\n    - {name: everything, match: {path: \"/**\"}, scopes: [a]}\n    - {name: health, match: {path: /health}, public: true}\n")...)
	if want := `routes.yaml:4:7: route "health" applies although "everything" stands above it, and is public: the most specific route counts, and no longer the first; if this is meant, move it up`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestReasons_RouteUnknownIsMissing has a table of reasons of an older version.
func TestReasons_RouteUnknownIsMissing(t *testing.T) {
	reasons, err := fs.ReadFile(olderFolder(), "reasons.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for unmatched, want := range map[string]string{"deny": "reasons.yaml:52:3: the reason route_unknown is missing here", "charge": ""} {
		got := warningsOf(t, filesOf(t, policies.Files, "reasons.yaml", string(reasons), "routes.yaml", "tollkeeper: {unmatched: "+unmatched+"}")...)
		if !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: got %q, want %q", unmatched, got, want)
		}
	}
}
