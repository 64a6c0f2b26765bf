package server

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// plansFile is three plans of two limits: one per account, one per key.
func plansFile(small, large string) string {
	return `tollkeeper:
  plans:
    small: {limits: {daily: {units: ` + small + `, window: day, per: account}, hourly: {units: 50, window: hour}}}
    large: {limits: {daily: {units: ` + large + `, window: day, per: account}, hourly: {units: 5000, window: hour}}}
    payg: {limits: {credits: {units: 0, window: none, per: account}}}
`
}

// startWithPlans starts a server over the shipped policies with plans of our own, and returns what changes them.
func startWithPlans(t *testing.T, plans string) (*running, func(plans string)) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "policies", "plans.yaml")
	if err := os.CopyFS(filepath.Dir(file), os.DirFS("../../policies")); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(plans)
	writeFiles(t, filepath.Dir(file), "routes.yaml", "{}") // the shipped ones charge limits of the shipped plans
	cfg := configFor(dir)
	cfg.Policy.Paths = []string{filepath.Dir(file)}
	r := start(t, cfg)
	return r, func(plans string) {
		before := r.status().Policy
		write(plans)
		r.await("the reload", func() bool { return r.status().Policy != before })
	}
}

// allowed sends checks until one is denied or there were that many, and returns how many were allowed.
func (r *running) allowed(key string, most int) (n int) {
	r.t.Helper()
	for ; n < most; n++ {
		if status, _ := r.check(key); status != 200 {
			break
		}
	}
	return n
}

// TestServer_LimitsThatChange changes limits while they are used, and sends checks at once.
func TestServer_LimitsThatChange(t *testing.T) {
	r, plans := startWithPlans(t, plansFile("100", "4000"))
	k := r.newKey("acme", "large")
	wantAllowed := func(what string, most, want int) {
		t.Helper()
		if got := r.allowed(k.Key, most); got != want {
			t.Errorf("%s: %d allowed, want %d", what, got, want)
		}
	}
	move := func(plan string) {
		r.do("PATCH", "/v1/keys/"+k.ID, admin.KeyUpdate{Plan: &plan}, nil)
	}
	wantAllowed("on the large plan", 30, 30)
	move("small")
	wantAllowed("moved to the small plan, of which the hour's 50 count first", 200, 20)
	r.want(k.Key, 402, "quota_exceeded")
	move("large")
	wantAllowed("moved back", 60, 60)
	plans(plansFile("100", "120"))
	wantAllowed("after an edit that left 10 units", 50, 10)
	r.want(k.Key, 402, "quota_exceeded")
	plans(plansFile("100", "125"))
	wantAllowed("after an edit that added 5", 50, 5)
	plans(plansFile("100", "3"))
	wantAllowed("after an edit below what was used", 50, 0)
	var quotas []admin.Quota
	r.do("GET", "/v1/quota?key="+k.ID, nil, &quotas)
	for _, q := range quotas {
		if q.Limit == "daily" && (q.Allowance != 3 || q.Spent != 125 || q.Remaining != 0 || len(q.Outstanding) != 0) {
			t.Errorf("%+v", q)
		}
	}
}

func TestServer_CreditCountsAtOnce(t *testing.T) {
	r, _ := startWithPlans(t, plansFile("100", "4000"))
	k := r.newKey("acme", "payg")
	for i, id := range []string{"a", "b", "c"} {
		r.want(k.Key, 402, "credits_exhausted")
		r.do("POST", "/v1/quota/credit", admin.QuotaChange{QuotaHolder: admin.QuotaHolder{Account: "acme"}, Limit: "credits", Units: int64(i) + 1, ID: id}, nil)
		if got := r.allowed(k.Key, 10); got != i+1 {
			t.Errorf("%d allowed of %d credits", got, i+1)
		}
	}
}

// TestServer_TwoPlansOneLimit has keys of one account on two plans that share a limit of the account.
func TestServer_TwoPlansOneLimit(t *testing.T) {
	r, _ := startWithPlans(t, plansFile("10", "300"))
	large := r.newKey("acme", "large")
	var small admin.Key
	r.do("POST", "/v1/keys", admin.KeyCreate{Account: "acme", Plan: "small"}, &small)
	got := map[string]int{}
	for range 400 {
		for _, k := range []admin.Key{small, large} {
			if status, _ := r.check(k.Key); status == 200 {
				got[k.ID]++
			}
		}
	}
	if got[small.ID] != 5 || got[large.ID] != 295 {
		t.Errorf("%d for the small plan and %d for the large one, want 5 and 295", got[small.ID], got[large.ID])
	}
}

// TestServer_QuotaOfTheSmallerPlan shows what is left of a limit if a node holds more than the plan grants, for keys
// on a larger plan.
func TestServer_QuotaOfTheSmallerPlan(t *testing.T) {
	r, _ := startWithPlans(t, plansFile("10", "4000"))
	large := r.newKey("acme", "large")
	var small admin.Key
	r.do("POST", "/v1/keys", admin.KeyCreate{Account: "acme", Plan: "small"}, &small)
	for _, step := range []struct {
		use  int
		left int64
	}{{1, 9}, {2, 7}, {12, 0}, {20, 0}} {
		if got := r.allowed(large.Key, step.use); got != step.use {
			t.Fatalf("%d of %d allowed", got, step.use)
		}
		var quotas []admin.Quota
		r.do("GET", "/v1/quota?key="+small.ID, nil, &quotas)
		for _, q := range quotas {
			if q.Limit == "daily" && q.Remaining != step.left {
				t.Errorf("%+v, want %d left", q, step.left)
			}
		}
	}
}
