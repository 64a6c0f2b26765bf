package bolt_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// manyKeys are keys as an import brings them.
func manyKeys(n int) []apikey.Key {
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	keys := make([]apikey.Key, n)
	for i := range keys {
		id := apikey.NewID("key")
		keys[i] = apikey.Key{
			ID: id, Name: fmt.Sprint("key number ", i), Account: fmt.Sprint("account-", i%1000), Plan: "pro", Environment: "live",
			Scopes: []string{"read", "write"}, ExpiresAt: at.AddDate(5, 0, 0), Meta: map[string]any{"team": "blue"},
			Lineage: id, CreatedAt: at, UpdatedAt: at, Version: 1, Digest: apikey.Hasher{}.Text(id),
		}
	}
	return keys
}

func importAll(tb testing.TB, db *bolt.DB, keys []apikey.Key, batch int) {
	tb.Helper()
	for ; len(keys) > 0; keys = keys[min(batch, len(keys)):] {
		if _, err := db.Keys().Import(tb.Context(), keys[:min(batch, len(keys))]); err != nil {
			tb.Fatal(err)
		}
	}
}

func openIn(tb testing.TB, path string) *bolt.DB {
	tb.Helper()
	db, err := bolt.Open(path, bolt.Options{Pepper: "none"})
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

// BenchmarkImport imports 100,000 keys, 5,000 at a time.
func BenchmarkImport(b *testing.B) {
	keys := manyKeys(100_000)
	for b.Loop() {
		db := openIn(b, filepath.Join(b.TempDir(), "tollkeeper.db"))
		importAll(b, db, keys, 5000)
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen opens a file with 100,000 keys.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "tollkeeper.db")
	db := openIn(b, path)
	importAll(b, db, manyKeys(100_000), 5000)
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := openIn(b, path).Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFind looks keys up among 10,000.
func BenchmarkFind(b *testing.B) {
	db := openIn(b, filepath.Join(b.TempDir(), "tollkeeper.db"))
	defer func() { _ = db.Close() }()
	keys := manyKeys(10_000)
	importAll(b, db, keys, 5000)
	i := 0
	for b.Loop() {
		if _, err := db.Keys().Find(b.Context(), keys[i%len(keys)].Digest); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkLease leases from 64 goroutines, each a node, out of one bucket or each out of its own.
func BenchmarkLease(b *testing.B) {
	const goroutines = 64
	for _, buckets := range []int{1, goroutines} {
		b.Run(fmt.Sprint(buckets, " buckets"), func(b *testing.B) {
			db := openIn(b, filepath.Join(b.TempDir(), "tollkeeper.db"))
			defer func() { _ = db.Close() }()
			l := authz.Limit{Name: "requests", Units: quota.MaxUnits, Window: authz.WindowMonth}
			var wg sync.WaitGroup
			for i := range goroutines {
				wg.Go(func() {
					bucket := quota.Bucket{Per: authz.PerKey, Holder: fmt.Sprint(i % buckets), Limit: l.Name}
					for seq := range max(b.N/goroutines, 1) {
						if _, err := (quotatest.Ask{
							Node: quota.NodeID(fmt.Sprint(i)), Seq: uint64(seq), Bucket: bucket, Limit: l, Want: 10,
						}.Send(b.Context(), db.Ledger())); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "leases/s")
		})
	}
}

// addAll adds records with enough concurrency to fill the groups of the committer.
func addAll(tb testing.TB, s revocation.Store, n int, record func(i int) revocation.Record) {
	tb.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 512 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if _, err := s.Add(tb.Context(), record(i)); err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// revokedToken is a record like those that an issuer's events make.
func revokedToken(i int) revocation.Record {
	at := time.Date(2024, 5, 15, 12, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Millisecond)
	return revocation.Record{
		Kind: revocation.KindJTI, Issuer: "https://issuer.example/realms/main", Value: fmt.Sprintf("1f2e3d4c-0000-4000-8000-%012d", i),
		At: at, Cause: "logout", ExpiresAt: at.Add(time.Hour),
	}
}

// BenchmarkRestart opens a file with a million revocations, reads them into a set, and then forgets them all.
func BenchmarkRestart(b *testing.B) {
	const n = 1_000_000
	path := filepath.Join(b.TempDir(), "tollkeeper.db")
	db := openIn(b, path)
	addAll(b, db.Revocations(), n, revokedToken)
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			if err := openIn(b, path).Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	db = openIn(b, path)
	defer func() { _ = db.Close() }()
	late := func() time.Time { return revokedToken(n).ExpiresAt }
	var s *revocation.Set
	b.Run("sync", func(b *testing.B) {
		for b.Loop() {
			s = revocation.NewSet(db.Revocations(), time.Minute, late)
			if err := s.Sync(b.Context()); err != nil || s.Len() != n {
				b.Fatalf("%d records, %v", s.Len(), err)
			}
		}
	})
	b.Run("prune", func(b *testing.B) { // works once: -benchtime 1x
		if err := s.Prune(b.Context()); err != nil || s.Len() != 0 {
			b.Fatalf("%d records, %v", s.Len(), err)
		}
	})
}
