package bolt_test

import (
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// TestLedger_FileOfAnOlderVersion has books that are named by holder and limit alone. Since then, limits of one name that
// count different things have a book each. Usage and credits stay.
func TestLedger_FileOfAnOlderVersion(t *testing.T) {
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
	writeOld(t, path, map[string]map[string]string{
		"books": {
			"\x07account\x04acmedaily": `{"current":{"period":{"start":"2026-11-30T00:00:00Z","end":"2026-12-01T00:00:00Z"},"granted":16,"spent":3,` +
				`"held":{"old":{"units":13,"until":"2026-11-30T12:01:00Z"}},"ceiling":1000},"seen":{"old":{"seq":4,"at":"2026-11-30T11:59:00Z","lease":` +
				`{"period":{"start":"2026-11-30T00:00:00Z","end":"2026-12-01T00:00:00Z"},"granted":0,"held":13,"free":984,"allowance":1000,"now":"2026-11-30T11:59:00Z","until":60000000000}}}}`,
			"\x07account\x04acmecredits": `{"prepaid":{"period":{},"credited":100,"granted":20,"spent":20,"ceiling":100}}`,
			"\x07account\x04acmeboth": `{"current":{"period":{"start":"2026-11-01T00:00:00Z","end":"2026-12-01T00:00:00Z"},"granted":5,"spent":5,"ceiling":10},` +
				`"prepaid":{"period":{},"credited":7,"granted":0,"spent":0}}`,
		},
		"journal": {"order-1": `{"verb":"credit","bucket":{"per":"account","holder":"acme","limit":"credits"},"units":100,"at":"2026-11-01T00:00:00Z"}`},
	})
	if db, err = bolt.Open(path, opt); err != nil {
		t.Fatal(err)
	}
	defer func() { checkAndClose(t, db) }()
	limit := func(name string, units int64, w authz.Window) (authz.Limit, quota.Bucket) {
		l := authz.Limit{Name: name, Units: units, Unit: authz.UnitRequests, Window: w, Per: authz.PerAccount}
		return l, quota.BucketOf(&l, authz.Holder{Account: "acme"})
	}
	daily, dailyBucket := limit("daily", 1000, authz.WindowDay)
	credits, creditsBucket := limit("credits", 0, authz.WindowNone)
	bothMonth, bothMonthBucket := limit("both", 10, authz.WindowMonth)
	bothPrepaid, bothPrepaidBucket := limit("both", 0, authz.WindowNone)
	hourly, hourlyBucket := limit("daily", 50, authz.WindowHour)
	ledger := db.Ledger()
	for range 2 { // a balance changes nothing
		for _, c := range []struct {
			l                              authz.Limit
			b                              quota.Bucket
			allowance, spent, stays, frees int64
		}{
			{daily, dailyBucket, 1000, 3, 13, 984}, {credits, creditsBucket, 100, 20, 0, 80}, {bothMonth, bothMonthBucket, 10, 5, 0, 5},
			{bothPrepaid, bothPrepaidBucket, 7, 0, 0, 7}, {hourly, hourlyBucket, 50, 0, 0, 50},
		} {
			got, err := ledger.Balance(t.Context(), c.b, c.l)
			if err != nil || got.Allowance != c.allowance || got.Spent != c.spent || got.Stranded != c.stays || got.Free != c.frees {
				t.Errorf("%+v: %+v, %v", c.b, got, err)
			}
		}
	}
	if _, err := ledger.Credit(t.Context(), quota.CreditRequest{ID: "order-1", Bucket: creditsBucket, Limit: credits, Units: 100}); err != nil {
		t.Errorf("a credit that was repeated after the upgrade: %v", err)
	}
	for i, c := range []struct {
		l    authz.Limit
		b    quota.Bucket
		want int64
	}{{daily, dailyBucket, 984}, {credits, creditsBucket, 80}, {bothPrepaid, bothPrepaidBucket, 7}, {bothMonth, bothMonthBucket, 5}, {hourly, hourlyBucket, 50}} {
		bad := quotatest.Ask{Node: "n", Seq: 1, Bucket: c.b, Limit: c.l, Want: -1}
		if _, err := bad.Send(t.Context(), ledger); authz.KindOf(err) != authz.KindInvalid { // leaves the old book in place
			t.Fatalf("a bad lease: %v", err)
		}
		good := quotatest.Ask{Node: "n", Seq: uint64(i) + 1, Bucket: c.b, Limit: c.l, Want: 5000}
		if got, err := good.Send(t.Context(), ledger); err != nil || got.Granted != c.want {
			t.Errorf("%+v: granted %d, want %d: %v", c.b, got.Granted, c.want, err)
		}
	}
}

// writeOld writes records into a file as an older version did.
func writeOld(t *testing.T, path string, buckets map[string]map[string]string) {
	t.Helper()
	file, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Update(func(tx *bbolt.Tx) error {
		for bucket, records := range buckets {
			for key, value := range records {
				if err := tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value)); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}
