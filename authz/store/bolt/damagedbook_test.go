package bolt_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// TestLedger_DamagedOldBook has a book of an older version that cannot be read. The file opens. Nothing is leased to its holder, for
// what was used is not known, and nobody else is affected.
func TestLedger_DamagedOldBook(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	opt := bolt.Options{Pepper: "none", Now: func() time.Time { return now }}
	db, err := bolt.Open(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	daily := authz.Limit{Name: "daily", Units: 1000, Unit: authz.UnitRequests, Window: authz.WindowDay, Per: authz.PerAccount}
	credits := authz.Limit{Name: "credits", Unit: authz.UnitRequests, Window: authz.WindowNone, Per: authz.PerAccount}
	bucket := func(l authz.Limit, account string) quota.Bucket {
		return quota.BucketOf(&l, authz.Holder{Account: account})
	}
	writeOld(t, path, map[string]map[string]string{"books": {
		bucket(credits, "a").Key(): `{"prepaid":{"period":{},"credited":9,"granted":3,"spent":0,"held":{"old":{"units":3}},"ceiling":9}}`,
		bucket(daily, "b").Key():   `{"current":{"period":`,
		bucket(credits, "b").Key(): `{"prepaid":{"period":{},"credited":9}}`,
		bucket(credits, "c").Key(): `{"prepaid":{"period":{},"credited":9,"granted":2,"spent":0,"held":{"old":{"units":2}},"ceiling":9}}`,
	}})
	for range 2 { // the second time the file is up to date
		if db, err = bolt.Open(path, opt); err != nil {
			t.Fatal(err)
		}
		ledger := db.Ledger()
		var rs []quota.LeaseRequest
		for _, account := range []string{"a", "b", "c"} {
			rs = append(rs, quotatest.Ask{Node: "n", Seq: 1, Bucket: bucket(credits, account), Limit: credits, Want: 1}.Request())
		}
		answers, err := ledger.Lease(t.Context(), rs)
		if err != nil || answers[0].Err != nil || answers[2].Err != nil || authz.KindOf(answers[1].Err) != authz.KindConflict || answers[1].Err == nil {
			t.Errorf("%+v, %v", answers, err)
		}
		if _, err := ledger.Balance(t.Context(), bucket(daily, "b"), daily); authz.KindOf(err) != authz.KindUnavailable || err == nil {
			t.Errorf("the balance of what cannot be read: %v", err)
		}
		var stranded int64
		err = ledger.Stranded(t.Context(), func(s quota.Stranding) bool { stranded += s.Units; return true })
		if authz.KindOf(err) != authz.KindUnavailable || err == nil || stranded < 5 {
			t.Errorf("%d stranded, %v", stranded, err)
		}
		if _, err := ledger.Forget(t.Context()); authz.KindOf(err) != authz.KindUnavailable || err == nil {
			t.Errorf("forget: %v", err)
		}
		if err := db.Check(t.Context()); err == nil {
			t.Error("the check finds nothing")
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
