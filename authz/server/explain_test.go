package server

import (
	"path/filepath"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
)

// TestExplain_NamesTheRuleOfADropInPolicy: such a policy gives no reasons, has no routes, so that none matches, and is queried as a rule or as a
// package.
func TestExplain_NamesTheRuleOfADropInPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		query, text             string
		allowedBy, deniedBy     string
		allowedLine, deniedLine int
	}{
		"a rule": {"envoy/authz/allow", "package envoy.authz\n\ndefault allow := false\n\nallow if {\n\tinput.key.status == \"active\"\n}\n",
			"data.envoy.authz.allow", "data.envoy.authz.allow", 5, 3},
		"a decision": {"envoy/authz/allow", "package envoy.authz\n\nallow := {\"allowed\": true} if {\n\tinput.key.status == \"active\"\n} else := {\"allowed\": false, \"http_status\": 418}\n",
			"data.envoy.authz.allow", "data.envoy.authz.allow", 3, 5},
		"a package": {"acme", "package acme\n\nallowed := input.key.status == \"active\"\n", "data.acme.allowed", "data.acme.allowed", 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFiles(t, dir, "p.rego", c.text)
			cfg := configFor(t.TempDir())
			cfg.Policy.Paths, cfg.Policy.Query = []string{dir}, c.query
			r := start(t, cfg)
			key := r.newKey("acme", "").Key
			for key, want := range map[string]struct {
				rule string
				line int
			}{key: {c.allowedBy, c.allowedLine}, "": {c.deniedBy, c.deniedLine}} {
				e := r.explain(key)
				if e.Allowed != (key != "") || e.Route == nil || e.Route.State != "none" {
					t.Fatalf("%+v", e)
				}
				if e.Rule == nil || e.Rule.Name != want.rule || e.Rule.Line != want.line || filepath.Base(e.Rule.File) != "p.rego" {
					t.Errorf("allowed %v: the rule is %+v, want %+v", e.Allowed, e.Rule, want)
				}
			}
		})
	}
}

// TestExplain_NamesNoRuleWhereThePolicyFailed: without the failure, the rule would have allowed.
func TestExplain_NamesNoRuleWhereThePolicyFailed(t *testing.T) {
	cfg := configFor(t.TempDir())
	cfg.Policy.Paths = []string{policyFolder(t, "custom.rego", "package tollkeeper.custom\n\ndeny contains \"x\" if to_number(input.key.id) > 3\n")}
	r := start(t, cfg)
	e := r.explain(r.newKey("acme", "free").Key)
	if e.Reason != "policy_error" || e.Rule != nil || len(e.PolicyErrors) != 1 {
		t.Errorf("denied for %s by %+v: %v", e.Reason, e.Rule, e.PolicyErrors)
	}
}

// TestExplain_PutsTheKeyWhereTheServerLooksForOne has no x-api-key header configured.
func TestExplain_PutsTheKeyWhereTheServerLooksForOne(t *testing.T) {
	for name, places := range map[string]config.Credentials{
		"another header": {Headers: []string{"apikey"}}, "bearer": {Bearer: true}, "a cookie": {Cookies: []string{"k"}}, "the query": {Query: []string{"k"}},
	} {
		cfg := configFor(t.TempDir())
		cfg.Credentials = places
		r := start(t, cfg)
		k := r.newKey("acme", "free")
		for _, q := range []admin.Question{{Key: k.Key}, {Key: k.ID}, {Account: "acme"}} {
			q.CheckRequest = []byte(`{"attributes": {"request": {"http": {"method": "GET", "path": "/v1/x"}}}}`)
			var e admin.Explanation
			if r.do("POST", "/v1/explain", q, &e); !e.Allowed {
				t.Errorf("%s: %+v is denied for %s", name, q, e.Reason)
			}
		}
	}
}

// TestExplain_NamesTheOperatorsRule, whatever its form, and not the shipped rule that reads it.
func TestExplain_NamesTheOperatorsRule(t *testing.T) {
	const when = ` if input.attributes.request.http.method == "GET"`
	for _, rule := range []string{
		`deny` + when,
		`deny contains "Closed."` + when,
		`deny["Closed."]` + when,
		`deny := "Closed."` + when,
		`deny contains {"detail": "Closed."}` + when,
		`deny contains {"reason": "Not Usable"}` + when,
		`deny contains {"reason": "policy_denied"}` + when,
		`deny contains {"reason": "gate_closed"}` + when,
	} {
		t.Run(rule, func(t *testing.T) {
			cfg := configFor(t.TempDir())
			cfg.Policy.Paths = []string{policyFolder(t, "custom.rego", "package tollkeeper.custom\n\n"+rule+"\n")}
			r := start(t, cfg)
			e := r.explain(r.newKey("acme", "free").Key)
			if e.Rule == nil || filepath.Base(e.Rule.File) != "custom.rego" || e.Rule.Line != 3 || len(e.Rule.Facts) != 1 {
				t.Errorf("denied for %s by %+v", e.Reason, e.Rule)
			}
		})
	}
}
