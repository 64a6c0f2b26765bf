package bolt_test

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// version1 is testdata/version1.db.gz, a file of format "tollkeeper 1": the data of a server that was killed under load, after accounts
// and keys on four plans had made checks, with credits, a reset, a revocation, and leases of two nodes that were killed. What it should
// hold is in testdata/version1.json, as that version itself reported it two minutes after the kill.
type version1 struct {
	At       time.Time
	Keys     map[string]struct{ ID, Text, Reason string }
	Balances []quota.Balance // of quotas; the file also has books of rates
}

// openVersion1 unpacks the file and returns its path, what it should hold, and options to open it.
func openVersion1(t *testing.T) (path string, want version1, o bolt.Options) {
	t.Helper()
	packed, err := os.Open("testdata/version1.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = packed.Close() }()
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "tollkeeper.db")
	raw, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/version1.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	return path, want, bolt.Options{Pepper: apikey.Hasher{}.Fingerprint(), Now: func() time.Time { return want.At }}
}

// contentOf is all records of a file by bucket.
func contentOf(t *testing.T, path string) map[string]map[string]string {
	t.Helper()
	file, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	out := make(map[string]map[string]string)
	if err := file.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			records := make(map[string]string)
			out[string(name)] = records
			return b.ForEach(func(k, v []byte) error { records[string(k)] = string(v); return nil })
		})
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// limitOf is a limit that is counted in that bucket, and has the allowance of the balance.
func limitOf(t *testing.T, b *quota.Balance, credited int64) authz.Limit {
	t.Helper()
	l := authz.Limit{
		Name: b.Bucket.Limit, Units: b.Allowance - credited, Unit: b.Bucket.Unit, Window: b.Bucket.Window, Per: b.Bucket.Per,
		RefundOnCrash: b.Bucket.Limit == "trial",
	}
	if b.Bucket.Zone != "" {
		var err error
		if l.Zone, err = time.LoadLocation(b.Bucket.Zone); err != nil {
			t.Fatal(err)
		}
	}
	if l.Window == authz.WindowMonth {
		l.Anchor = b.Bucket.Anchor + 1
	}
	return l
}

// creditedIn is what was credited in the file on top of the limits.
func creditedIn(b *quota.Balance) int64 {
	switch {
	case b.Bucket.Limit == "credits":
		return b.Allowance
	case b.Bucket.Limit == "monthly" && b.Bucket.Holder == "pro":
		return 50
	}
	return 0
}

// TestOpen_Version1 opens a file of the version before, and again: usage, credits, ids, keys and revocations are as they were, what
// nodes held is stranded, and the books of rates are gone.
func TestOpen_Version1(t *testing.T) {
	path, want, o := openVersion1(t)
	before := contentOf(t, path)
	if len(before["books"]) <= len(want.Balances) || before["holders"] != nil {
		t.Fatal("not the file that this test is for")
	}
	var after map[string]map[string]string
	for round := range 3 {
		db, err := bolt.Open(path, o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want.Balances {
			b := &want.Balances[i]
			got, err := db.Ledger().Balance(t.Context(), b.Bucket, limitOf(t, b, creditedIn(b)))
			if err != nil || !reflect.DeepEqual(got, *b) {
				t.Errorf("round %d: %+v, want %+v: %v", round, got, *b, err)
			}
		}
		checkKeys(t, db, &want)
		checkAndClose(t, db)
		now := contentOf(t, path)
		if n := len(now["keys"]); n != len(before["keys"]) {
			t.Errorf("round %d: %d keys, before %d", round, n, len(before["keys"]))
		}
		for _, same := range []string{"account_keys", "revoked", "revisions", "expiries", "journal", "settled"} {
			if !maps.Equal(now[same], before[same]) {
				t.Errorf("round %d: bucket %q was changed", round, same)
			}
		}
		if n := len(now["books"]); n != 0 {
			t.Errorf("round %d: %d books are left", round, n)
		}
		if after != nil && !reflect.DeepEqual(now, after) {
			t.Errorf("round %d: the file has changed", round)
		}
		after = now
	}
	for key, text := range after["holders"] {
		r, err := quota.DecodeRecord([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range r.Counts {
			if b, err := quota.ParseKey(c.Name); err != nil || quota.IsRate(&authz.Limit{Window: b.Window}) {
				t.Errorf("the record %q has the count %q: %v", key, c.Name, err)
			}
		}
	}
}

// checkKeys looks every key up by its text.
func checkKeys(t *testing.T, db *bolt.DB, want *version1) {
	t.Helper()
	if len(want.Keys) < 8 {
		t.Fatalf("%d keys", len(want.Keys))
	}
	for name, k := range want.Keys {
		key, account := apikey.NewIdentifier(db.Keys(), apikey.Hasher{}).Identify(t.Context(), k.Text, want.At)
		_, revoked, err := db.Revocations().Get(t.Context(), revocation.KindKey, "", key.ID)
		if err != nil {
			t.Fatal(err)
		}
		reason := ""
		switch {
		case account.Status == authz.AccountSuspended:
			reason = "account_suspended"
		case key.Status == authz.KeyDisabled:
			reason = "key_disabled"
		case revoked:
			reason = "key_revoked"
		}
		if key.ID != k.ID || reason != k.Reason {
			t.Errorf("key %s: %+v of %+v, want %+v", name, key, account, k)
		}
	}
}

// TestOpen_Version1GoesOn spends what the file of the version before has left: no unit more, and a credit that is repeated counts once.
func TestOpen_Version1GoesOn(t *testing.T) {
	path, want, o := openVersion1(t)
	db, err := bolt.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer checkAndClose(t, db)
	for i := range want.Balances {
		b := &want.Balances[i]
		l := limitOf(t, b, creditedIn(b))
		ask := quota.LeaseRequest{Node: "new", Seq: uint64(i) + 1, Holder: b.Bucket.HolderID(), Parts: []quota.LeasePart{
			{Count: b.Bucket.CountKey(), Limit: l, Want: quota.MaxUnits},
		}}
		got, err := db.Ledger().Lease(t.Context(), []quota.LeaseRequest{ask})
		if err != nil || got[0].Err != nil || got[0].Parts[0].Granted != b.Free || got[0].Parts[0].Elsewhere != 0 {
			t.Errorf("%+v: %+v, want %d: %v", b.Bucket, got, b.Free, err)
		}
		if b.Bucket.Holder != "payg" {
			continue
		}
		again, err := db.Ledger().Credit(t.Context(), quota.CreditRequest{ID: "order-1", Bucket: b.Bucket, Limit: l, Units: 1000})
		if err != nil || again.Allowance != b.Allowance {
			t.Errorf("a credit that was repeated after the upgrade: %+v, %v", again, err)
		}
		if _, err := db.Ledger().Credit(t.Context(), quota.CreditRequest{ID: "order-2", Bucket: b.Bucket, Limit: l, Units: 1000}); authz.KindOf(err) != authz.KindConflict {
			t.Errorf("a credit with the id of another: %v", err)
		}
	}
}

// TestChecks_OlderFile checks a file of the version before as doctor does. Only if it is sound, the next step is to start the server:
// else that refuses the file.
func TestChecks_OlderFile(t *testing.T) {
	put := func(bucket, key, value string) func(*bbolt.Tx) error {
		return func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value)) }
	}
	for name, harm := range map[string]func(*bbolt.Tx) error{
		"sound":        func(*bbolt.Tx) error { return nil },
		"short digest": put("digests", "short", "key_1"),
		"digest":       put("digests", strings.Repeat("d", 32), "key_1"),
		"stage":        put("meta", "records", "z"),
		"revocation": func(tx *bbolt.Tx) error {
			return errors.Join(tx.DeleteBucket([]byte("expiries")), put("revoked", "x", "{")(tx))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, _, o := openVersion1(t)
			file, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(file.Update(harm), file.Close()); err != nil {
				t.Fatal(err)
			}
			f, err := bolt.Inspect(path)
			if err != nil {
				t.Fatal(err)
			}
			found := doctor.Run(t.Context(), f.Checks())
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			said := found.Findings[1].Wrong
			db, err := bolt.Open(path, o)
			if err == nil {
				_ = db.Close()
			}
			if starts := strings.Contains(said, "start the server once"); starts != (err == nil) || !starts && !strings.Contains(said, "damaged") {
				t.Errorf("doctor says %q, and the server %v", said, err)
			}
		})
	}
}

// oldBook is a book as version 1 wrote it.
const oldBook = `{"current":{"period":{"start":"2026-12-01T00:00:00Z","end":"2026-12-02T00:00:00Z"},"granted":%d,"spent":%d,"ceiling":100000,` +
	`"held":{"n":{"units":5,"until":"2026-12-01T10:00:00Z"}}},"seen":{"n":{"seq":7,"at":"2026-12-01T09:59:00Z",` +
	`"lease":{"period":{"start":"2026-12-01T00:00:00Z","end":"2026-12-02T00:00:00Z"},"granted":5,"held":5,"counted":6,"now":"2026-12-01T09:59:00Z","until":60000000000}}}}`

// writeVersion1 makes a file of version 1 with that many books, two for each holder, and returns their buckets. Book i has i units spent.
func writeVersion1(t testing.TB, path string, n int) (buckets []quota.Bucket) {
	t.Helper()
	db, err := bolt.Open(path, bolt.Options{Pepper: "none"})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		for _, key := range []string{"log_id", "log_applied"} {
			if err := meta.Delete([]byte(key)); err != nil {
				return err
			}
		}
		if err := tx.DeleteBucket([]byte("holders")); err != nil {
			return err
		}
		return meta.Put([]byte("format"), []byte("tollkeeper 1"))
	}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		buckets = append(buckets, quota.Bucket{
			Per: authz.PerKey, Holder: fmt.Sprintf("key_%07d", i/2), Limit: []string{"a", "b"}[i%2], Unit: authz.UnitRequests, Window: authz.WindowDay,
		})
	}
	for from := 0; from < n; from += 50_000 {
		if err := file.Update(func(tx *bbolt.Tx) error {
			books := tx.Bucket([]byte("books"))
			for i := from; i < min(n, from+50_000); i++ {
				if err := books.Put([]byte(buckets[i].Key()), fmt.Appendf(nil, oldBook, 5+i, i)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return buckets
}

// upgradeFile is the variable that makes the test binary open a file.
const upgradeFile = "TOLLKEEPER_TEST_UPGRADE_FILE"

// TestOpen_KilledUpgrade kills a process in the middle of the upgrade. The next one goes on from there.
func TestOpen_KilledUpgrade(t *testing.T) {
	const books = 45_000
	original := filepath.Join(t.TempDir(), "original.db")
	buckets := writeVersion1(t, original, books)
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	killUpgrade(t, original, path, books)
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	db, err := bolt.Open(path, bolt.Options{Pepper: "none", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer checkAndClose(t, db)
	for i, b := range buckets {
		l := authz.Limit{Name: b.Limit, Units: 100_000, Unit: b.Unit, Window: b.Window, Per: b.Per}
		if got, err := db.Ledger().Balance(t.Context(), b, l); err != nil || got.Spent != int64(i) || got.Stranded != 5 {
			t.Fatalf("book %d: %+v, %v", i, got, err)
		}
	}
}

// killUpgrade has a process open a copy of the file and kills it at a random moment, until some of the books are left.
func killUpgrade(t *testing.T, original, path string, books int) {
	t.Helper()
	raw, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	longest := time.Second // that an upgrade takes here, roughly
	for round := range 50 {
		if err := errors.Join(os.RemoveAll(path+"-log"), os.WriteFile(path, raw, 0o600)); err != nil {
			t.Fatal(err)
		}
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), upgradeFile+"="+path)
		child.Stderr = os.Stderr
		began := time.Now()
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(rand.Int64N(int64(longest))), func() { _ = child.Process.Kill() })
		if err := child.Wait(); err == nil {
			longest = time.Since(began)
		}
		kill.Stop()
		if left := len(contentOf(t, path)["books"]); left > 0 && left < books {
			t.Logf("round %d: killed with %d books left", round, left)
			return
		}
	}
	t.Fatal("no kill came in the middle of an upgrade")
}

// openAndClose is what the process does that is killed.
func openAndClose(path string) error {
	db, err := bolt.Open(path, bolt.Options{Pepper: "none"})
	if err != nil {
		return err
	}
	return db.Close()
}

// BenchmarkOpen_Version1 opens a file with 100,000 books of version 1.
func BenchmarkOpen_Version1(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		path := filepath.Join(b.TempDir(), "tollkeeper.db")
		writeVersion1(b, path, 100_000)
		b.StartTimer()
		if err := openAndClose(path); err != nil {
			b.Fatal(err)
		}
	}
}
