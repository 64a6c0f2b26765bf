package admin

import (
	"reflect"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// afterCrash is a service whose ledger has what node "gone" held of each limit when it died: 5 units, after it had reported 3.
func afterCrash(t *testing.T, limits map[authz.Holder][]authz.Limit) *Service {
	t.Helper()
	now := time.Unix(1e9, 0)
	keys, ledger := memory.NewKeys(), memory.NewLedger(func() time.Time { return now })
	if _, err := keys.CreateAccount(t.Context(), apikey.Account{ID: "acme", Status: authz.AccountActive, CreatedAt: now, UpdatedAt: now, Version: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.CreateKey(t.Context(), apikey.Key{ID: "key_1", Account: "acme", Digest: apikey.Hasher{}.Text("x"), CreatedAt: now, UpdatedAt: now, Version: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Renew(t.Context(), "gone", quota.Standing{}); err != nil {
		t.Fatal(err)
	}
	plans := make(map[string][]authz.Limit)
	seq := uint64(0)
	for h, list := range limits {
		for _, l := range list {
			plans[l.Name] = append(plans[l.Name], l)
			for _, part := range []quota.LeasePart{{Want: 8}, {Spent: 3}} {
				seq++
				part.Limit, part.Count, part.Held = l, quota.BucketOf(&l, h).CountKey(), quota.Period{}
				if l.Window != authz.WindowNone && part.Spent > 0 {
					continue
				}
				r := quota.LeaseRequest{Node: "gone", Seq: seq, Holder: quota.HolderOf(&l, h), Parts: []quota.LeasePart{part}}
				if answers, err := ledger.Lease(t.Context(), []quota.LeaseRequest{r}); err != nil || answers[0].Err != nil {
					t.Fatal(answers, err)
				}
			}
		}
	}
	now = now.Add(quota.SessionTerm)
	return &Service{Keys: keys, Ledger: ledger, Plans: func() map[string][]authz.Limit { return plans }}
}

func limitOf(name string, per authz.Per, window authz.Window) authz.Limit {
	return authz.Limit{Name: name, Units: 100, Unit: authz.UnitRequests, Per: per, Window: window}
}

// TestStranded_IsListedByAccount lists what is stranded of accounts, keys and tokens, and nothing that comes back by itself.
func TestStranded_IsListedByAccount(t *testing.T) {
	refunded := limitOf("trial", authz.PerAccount, authz.WindowNone)
	refunded.RefundOnCrash = true
	alice := authz.BearerHolder("globex", "https://login.example.com", "alice", "")
	s := afterCrash(t, map[authz.Holder][]authz.Limit{
		{Key: "key_1", Account: "acme"}: {
			limitOf("credits", authz.PerAccount, authz.WindowNone), limitOf("own", authz.PerKey, authz.WindowNone),
			limitOf("daily", authz.PerAccount, authz.WindowDay), refunded,
		},
		{Key: alice, Account: "globex"}:      {limitOf("own", authz.PerKey, authz.WindowNone)},
		{Key: "key_gone", Account: "globex"}: {limitOf("own", authz.PerKey, authz.WindowNone)},
	})
	all := []Stranded{
		{"", "key", "key_gone", "own", "requests", "gone", 5, 3},
		{"acme", "account", "acme", "credits", "requests", "gone", 5, 3},
		{"acme", "key", "key_1", "own", "requests", "gone", 5, 3},
		{"globex", "key", alice, "own", "requests", "gone", 5, 3},
	}
	for _, c := range []struct {
		account, limit string
		want           []Stranded
	}{{"", "", all}, {"acme", "", all[1:3]}, {"acme", "own", all[2:3]}, {"globex", "credits", []Stranded{}}} {
		if got, err := s.stranded(t.Context(), c.account, c.limit); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("of account %q, limit %q: %+v, %v\nwant %+v", c.account, c.limit, got, err, c.want)
		}
	}
	for limit, kind := range map[string]authz.Kind{"daily": authz.KindInvalid, "nope": authz.KindNotFound} {
		if _, err := s.stranded(t.Context(), "", limit); authz.KindOf(err) != kind {
			t.Errorf("of limit %q: %v", limit, err)
		}
	}
}

// TestRelease_CountsOnce, whatever is repeated, and refuses what is not stranded.
func TestRelease_CountsOnce(t *testing.T) {
	credits := limitOf("credits", authz.PerAccount, authz.WindowNone)
	s := afterCrash(t, map[authz.Holder][]authz.Limit{{Key: "key_1", Account: "acme"}: {credits}})
	list, err := s.stranded(t.Context(), "", "")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	in := QuotaRelease{Stranded: list[0], Back: 4}
	for what, change := range map[string]func(*QuotaRelease){
		"more than is stranded": func(r *QuotaRelease) { r.Back = 6 },
		"nobody's":              func(r *QuotaRelease) { r.Holder = "" },
		"of another kind":       func(r *QuotaRelease) { r.Per = "planet" },
		"another unit":          func(r *QuotaRelease) { r.Unit = "tokens" },
		"another node's":        func(r *QuotaRelease) { r.Node = "other" },
	} {
		bad := in
		change(&bad)
		if _, err := s.release(t.Context(), bad); authz.KindOf(err) != authz.KindInvalid && authz.KindOf(err) != authz.KindConflict || err == nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for range 2 {
		if _, err := s.release(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		b, err := s.Ledger.Balance(t.Context(), quota.BucketOf(&credits, authz.Holder{Account: "acme"}), credits)
		if err != nil || b.Spent != 4 || b.Stranded != 0 || b.Free != 96 {
			t.Errorf("4 of 5 units came back, and 3 were spent before: %+v, %v", b, err)
		}
	}
	in.Back = 5
	if _, err := s.release(t.Context(), in); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("another decision on the same units: %v", err)
	}
}
