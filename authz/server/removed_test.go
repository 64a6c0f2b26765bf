package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/rulebook"
)

const plansInUse = `tollkeeper:
  plans:
    basic: {limits: {rate: {units: 60, window: minute}, credits: {units: 100, window: none, per: account}}}
    extra: {limits: {rate: {units: 600, window: minute}}}
    spare: {limits: {rate: {units: 1, window: minute}}}
    dead: {limits: {rate: {units: 1, window: minute}}}
`

const routesInUse = `tollkeeper:
  routes:
  - {name: render, match: {path: /v1/render}, charge: {credits: 5}}
  - {name: special, match: {path: /v1/special}, plans: [spare]}
`

// planWorld is a server on policies of its own, with an account on plan basic, a key on plan extra, and keys on plan dead that
// are revoked or expired.
type planWorld struct {
	*running
	cfg   config.Config
	dir   string
	basic admin.Key
	extra admin.Key
}

func startPlanWorld(t *testing.T, change func(*config.Config)) *planWorld {
	t.Helper()
	w := &planWorld{cfg: configFor(t.TempDir()), dir: policyFolder(t, "plans.yaml", plansInUse, "routes.yaml", routesInUse,
		"custom.rego", "package tollkeeper.custom\n\ndeny contains {\"reason\": \"closed\"} if input.key.name == \"closed\"\n",
		"closed.yaml", "tollkeeper: {reasons: {closed: {status: {strict: 402}}}}\n")}
	w.cfg.Policy.Paths = []string{w.dir}
	if change != nil {
		change(&w.cfg)
	}
	w.running = start(t, w.cfg)
	w.basic = w.newKey("acme", "basic")
	var dead admin.Key
	w.do("POST", "/v1/keys", admin.KeyCreate{Account: "acme", Plan: "extra"}, &w.extra)
	w.do("POST", "/v1/keys", admin.KeyCreate{Account: "acme", Plan: "dead"}, &dead)
	w.do("POST", "/v1/keys/"+dead.ID+"/revoke", map[string]string{}, nil)
	w.do("POST", "/v1/keys", admin.KeyCreate{Account: "acme", Plan: "dead", ExpiresAt: time.Now().Add(time.Millisecond), Force: true}, nil)
	return w
}

// TestReload_RemovalInUse edits the data in one way after the other, and back: removals of what is used are refused.
func TestReload_RemovalInUse(t *testing.T) {
	w := startPlanWorld(t, nil)
	for _, c := range []struct {
		name, file, old, text string
		want                  []string
	}{
		{"a plan of an account is renamed", "plans.yaml", "basic:", "base:", []string{`plan "basic" is gone`, "1 account (acme)"}},
		{"a plan of a key is renamed", "plans.yaml", "extra:", "more:", []string{`plan "extra" is gone`, "1 key (" + w.extra.ID + ")"}},
		{"a limit is renamed", "plans.yaml", "rate: {units: 60,", "pace: {units: 60,", []string{`limit "rate" of plan "basic" is gone`, "1 account (acme)"}},
		{"a limit counts something else", "plans.yaml", "window: none,", "window: none, unit: tokens,", []string{`limit "credits" of plan "basic" counts tokens and no more requests`, "1 account (acme)"}},
		{"a reason is removed", "closed.yaml", "tollkeeper: {reasons: {closed: {status: {strict: 402}}}}", "{}", []string{`reason "closed" is gone`, "custom.rego:3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := w.status()
			whole, err := os.ReadFile(filepath.Join(w.dir, c.file))
			if err != nil || !strings.Contains(string(whole), c.old) {
				t.Fatalf("%v: %q is not in %s", err, c.old, c.file)
			}
			edited := strings.Replace(string(whole), c.old, c.text, 1)
			writeFiles(t, w.dir, c.file, edited)
			var used admin.Plans
			w.do("GET", "/v1/plans", nil, &used)
			_, err = rulebook.Check(t.Context(), w.cfg.Policy, &used)
			w.await("the change is refused", func() bool { return w.status().PolicyFault != "" })
			now := w.status()
			for _, text := range append(c.want, "policy.allow_removed_plans") {
				if !strings.Contains(now.PolicyFault, text) {
					t.Errorf("the fault does not say %q: %s", text, now.PolicyFault)
				}
			}
			for _, text := range c.want {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("policy check does not say %q: %v", text, err)
				}
			}
			if now.Policy != before.Policy || len(now.MissingPlans) > 0 {
				t.Errorf("revision %s became %s, missing %v", before.Policy, now.Policy, now.MissingPlans)
			}
			if m := w.metrics(); !strings.Contains(m, `code="removed_in_use"`) {
				t.Errorf("the metric: %s", grep(m, "policy_fault"))
			}
			w.want(w.basic.Key, 200, "")
			w.want(w.extra.Key, 200, "")
			writeFiles(t, w.dir, c.file, string(whole))
			w.await("the file is good again", func() bool { return w.status().PolicyFault == "" })
		})
	}
}

// TestReload_RoutesAreGone deletes the table of routes, as a careless copy does. Its paths must not be open meanwhile. A table that
// is empty is meant.
func TestReload_RoutesAreGone(t *testing.T) {
	w := startPlanWorld(t, func(c *config.Config) { c.Policy.AllowRemovedPlans = true })
	before := w.status()
	if err := os.Remove(filepath.Join(w.dir, "routes.yaml")); err != nil {
		t.Fatal(err)
	}
	w.await("the change is refused", func() bool { return w.status().PolicyFault != "" })
	if now := w.status(); now.Policy != before.Policy || !strings.Contains(now.PolicyFault, "write routes: []") {
		t.Errorf("revision %s became %s: %s", before.Policy, now.Policy, now.PolicyFault)
	}
	w.stop()
	w.running = start(t, w.cfg)
	if now := w.status(); now.Policy != before.Policy || now.PolicyKept.IsZero() {
		t.Errorf("after a restart revision %s became %s: %s", before.Policy, now.Policy, now.PolicyFault)
	}
	writeFiles(t, w.dir, "routes.yaml", "tollkeeper: {routes: []}\n")
	w.await("there are no routes", func() bool { now := w.status(); return now.PolicyFault == "" && now.Policy != before.Policy })
}

// TestReload_RouteWithoutPlan removes what only routes name. That is a fault of the table, with its place, which no setting allows.
func TestReload_RouteWithoutPlan(t *testing.T) {
	w := startPlanWorld(t, func(c *config.Config) { c.Policy.AllowRemovedPlans = true })
	for _, c := range []struct{ name, old, text, want string }{
		{"a plan", "    spare: {limits: {rate: {units: 1, window: minute}}}\n", "", `routes.yaml:4:57: plan "spare" does not exist`},
		{"a limit", "credits:", "credit:", `routes.yaml:3:56: charge: no plan has a limit "credits"`},
		{"all plans", plansInUse, "{}", `routes.yaml:4:57: plan "spare" does not exist`},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := w.status().Policy
			writeFiles(t, w.dir, "plans.yaml", strings.Replace(plansInUse, c.old, c.text, 1))
			w.await("the change is refused", func() bool { return w.status().PolicyFault != "" })
			if s := w.status(); !strings.Contains(s.PolicyFault, filepath.Join(w.dir, c.want)) || s.Policy != before {
				t.Errorf("revision %s became %s: %s", before, s.Policy, s.PolicyFault)
			}
			writeFiles(t, w.dir, "plans.yaml", plansInUse)
			w.await("the file is good again", func() bool { return w.status().PolicyFault == "" })
		})
	}
}

// TestReload_RemovalNotInUse removes a plan whose only keys never work again.
func TestReload_RemovalNotInUse(t *testing.T) {
	w := startPlanWorld(t, nil)
	before := w.status().Policy
	writeFiles(t, w.dir, "plans.yaml", strings.Replace(plansInUse, "dead:", "new:", 1))
	w.await("the plan is gone", func() bool { return w.status().Policy != before })
	if s := w.status(); s.PolicyFault != "" || len(s.MissingPlans) > 0 || strings.Contains(strings.Join(s.Plans, " "), "dead") {
		t.Errorf("%+v", s)
	}
}

// TestReload_RemovalNoLongerInUse moves the account off the removed plan. The files do not change again.
func TestReload_RemovalNoLongerInUse(t *testing.T) {
	w := startPlanWorld(t, nil)
	writeFiles(t, w.dir, "plans.yaml", strings.Replace(plansInUse, "credits:", "credit:", 1), "routes.yaml", "tollkeeper: {routes: []}")
	w.await("the change is refused", func() bool { return w.status().PolicyFault != "" })
	plan := "extra"
	w.do("PATCH", "/v1/accounts/acme", admin.AccountUpdate{Plan: &plan}, nil)
	w.rules.Recheck(t.Context())
	w.await("the change is in force", func() bool { return w.status().PolicyFault == "" })
}

func TestReload_RemovalAllowed(t *testing.T) {
	w := startPlanWorld(t, func(c *config.Config) { c.Policy.AllowRemovedPlans = true })
	writeFiles(t, w.dir, "plans.yaml", strings.NewReplacer("basic:", "base:", "extra:", "more:").Replace(plansInUse))
	w.await("the plans are missed", func() bool { return len(w.status().MissingPlans) == 2 })
	missing := strings.Join(w.status().MissingPlans, "\n")
	if want := "plan \"basic\" does not exist, and is used by 1 account (acme)\nplan \"extra\" does not exist, and is used by 1 key (" + w.extra.ID + ")"; missing != want {
		t.Errorf("got  %s\nwant %s", missing, want)
	}
	if m := w.metrics(); !strings.Contains(m, "tollkeeper_plans_missing 2") {
		t.Errorf("the metric: %s", grep(m, "missing"))
	}
	w.want(w.basic.Key, 403, "policy_error")
	if e := w.explain(w.basic.Key); e.Cause != `account "acme" is on plan "basic", which is not defined: it would have no limits` {
		t.Errorf("explained: %s", e.Cause)
	}
	plan := "base"
	w.do("PATCH", "/v1/accounts/acme", admin.AccountUpdate{Plan: &plan}, nil)
	w.do("PATCH", "/v1/keys/"+w.extra.ID, admin.KeyUpdate{Plan: &plan}, nil)
	if s := w.status(); len(s.MissingPlans) > 0 {
		t.Errorf("still missing: %v", s.MissingPlans)
	}
	w.want(w.basic.Key, 200, "")
}

// TestStart_WithoutAPlanThatIsUsed has no kept policy: the server serves by the files, and says who is denied.
func TestStart_WithoutAPlanThatIsUsed(t *testing.T) {
	w := startPlanWorld(t, nil)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.cfg.DataDir, rulebook.KeptFile)); err != nil {
		t.Fatal(err)
	}
	writeFiles(t, w.dir, "plans.yaml", strings.Replace(plansInUse, "basic:", "base:", 1))
	used, err := PlansOf(t.Context(), w.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rulebook.Check(t.Context(), w.cfg.Policy, used); err == nil || !strings.Contains(err.Error(), `plan "basic" does not exist, and is used by 1 account (acme)`) {
		t.Errorf("by the data file: %v", err)
	}
	log := &journal{}
	w.running = startLogging(t, w.cfg, log.logger())
	w.want(w.basic.Key, 403, "policy_error")
	w.want(w.extra.Key, 200, "")
	w.await("the log says who", func() bool {
		return strings.Contains(log.String(), `plan \"basic\" does not exist, and is used by 1 account (acme)`)
	})
	if s := w.status(); len(s.MissingPlans) != 1 || s.PolicyFault != "" {
		t.Errorf("%+v", s)
	}
}

// TestTokenPlans_AreUsed: plans that only valid tokens name are in use.
func TestTokenPlans_AreUsed(t *testing.T) {
	var plans tokenPlans
	for range 2 {
		plans.Record(&check.Entry{Facts: &authz.Facts{Token: authz.TokenFact{Status: authz.TokenValid, Plan: "gold"}}})
		plans.Record(&check.Entry{Facts: &authz.Facts{Token: authz.TokenFact{Status: authz.TokenExpired, Plan: "silver"}}})
	}
	uses := make(rulebook.Uses)
	plans.addTo(uses)
	if len(uses) != 1 || !uses["gold"].Tokens {
		t.Errorf("%+v", uses)
	}
}
