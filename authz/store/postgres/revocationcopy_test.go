package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation/revocationtest"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

// away is where no server is.
const away = "postgres://tollkeeper@127.0.0.1:1/x?sslmode=disable"

func syncs(t *testing.T, set *revocation.Set) {
	t.Helper()
	if err := set.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A node starts while the database is away: it knows what the process before it knew, and is as old as that.
func TestRevocationCopy(t *testing.T) {
	url, dir := migrated(t), t.TempDir()
	db := open(t, Options{URL: url, CopyDir: dir})
	s := db.Revocations()
	set := revocation.NewSet(s, time.Minute, time.Now)
	syncs(t, set) // nothing yet
	for i := range 5 {
		add(t, s, keyRecord(fmt.Sprint("key_", i)))
		syncs(t, set)
	}
	account := revocation.Record{Kind: revocation.KindAccount, Value: "acme", At: revocationtest.Now(), Before: revocationtest.Now()}
	add(t, s, account)
	syncs(t, set)
	account.Before = account.Before.Add(time.Hour)
	add(t, s, account)
	syncs(t, set)
	add(t, s, keyRecord("never read"))
	id := db.Installation()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	gone := open(t, Options{URL: away, CopyDir: dir, Installation: id, MayBeAway: true})
	now := time.Now()
	restored := revocation.NewSet(gone.Revocations(), time.Minute, func() time.Time { return now })
	if err := restored.Sync(t.Context()); err == nil || !restored.Stale() {
		t.Fatalf("without a database: %v", err)
	}
	if err := restored.Restore(); err != nil {
		t.Fatal(err)
	}
	if age := restored.Age(); restored.Stale() || age < 0 || age > 30*time.Second {
		t.Errorf("age %s, stale %v", age, restored.Stale())
	}
	if !restored.Key("key_0") || !restored.Key("key_4") || !restored.Account("acme", account.Before) || restored.Key("never read") || restored.Len() != 6 {
		t.Errorf("%d records", restored.Len())
	}
	now = now.Add(time.Minute)
	if !restored.Stale() {
		t.Error("an old copy is trusted")
	}
}

func TestRevocationCopy_Refused(t *testing.T) {
	url, dir := migrated(t), t.TempDir()
	db := open(t, Options{URL: url, CopyDir: dir})
	set := revocation.NewSet(db.Revocations(), time.Minute, time.Now)
	add(t, db.Revocations(), keyRecord("key_1"))
	syncs(t, set)
	id := db.Installation()
	restore := func(what string, o Options, now time.Time) {
		t.Helper()
		o.URL, o.MayBeAway = away, true
		set := revocation.NewSet(open(t, o).Revocations(), time.Hour, func() time.Time { return now })
		if err := set.Restore(); err == nil || !set.Stale() {
			t.Errorf("%s: %v, stale %v", what, err, set.Stale())
		}
	}
	restore("another installation", Options{CopyDir: dir, Installation: "00000000-0000-0000-0000-000000000000"}, time.Now())
	restore("no installation", Options{CopyDir: dir}, time.Now())
	restore("no directory", Options{Installation: id}, time.Now())
	restore("no file", Options{CopyDir: t.TempDir(), Installation: id}, time.Now())
	restore("a clock that went back", Options{CopyDir: dir, Installation: id}, time.Now().Add(-time.Hour))
	if err := os.Truncate(filepath.Join(dir, revocationsFile), 100); err != nil {
		t.Fatal(err)
	}
	restore("a damaged file", Options{CopyDir: dir, Installation: id}, time.Now())
}

// After a start from the copy everything is read again, and what was lost meanwhile stays revoked.
func TestRevocationCopy_DatabaseComesBack(t *testing.T) {
	s, err := pgtest.Start(pgtest.Options{Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.CreateDatabase("x"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Migrate(t.Context(), Options{URL: s.URL("x")}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	db := open(t, Options{URL: s.URL("x"), CopyDir: dir})
	set := revocation.NewSet(db.Revocations(), time.Minute, time.Now)
	add(t, db.Revocations(), keyRecord("kept"))
	lost := add(t, db.Revocations(), keyRecord("lost"))
	add(t, db.Revocations(), keyRecord("lost too"))
	account := revocation.Record{Kind: revocation.KindAccount, Value: "acme", At: revocationtest.Now(), Before: revocationtest.Now()}
	add(t, db.Revocations(), account)
	syncs(t, set)
	loseAfter(t, db, lost.Revision-1)
	account.Before = account.Before.Add(time.Hour)
	add(t, db.Revocations(), account) // with a lower revision than before
	add(t, db.Revocations(), keyRecord("new"))
	id := db.Installation()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}

	db = open(t, Options{URL: s.URL("x"), CopyDir: dir, Installation: id, MayBeAway: true})
	set = revocation.NewSet(db.Revocations(), time.Minute, time.Now)
	if err := set.Restore(); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the database can be read", func() bool { return set.Sync(t.Context()) == nil })
	if !set.Key("kept") || !set.Key("lost") || !set.Key("new") || !set.Account("acme", account.Before) || set.Revision() != 3 {
		t.Errorf("%d records up to %d", set.Len(), set.Revision())
	}
}

// When the database has lost changes, everything is read again, and the file begins anew too.
func TestRevocationCopy_LostCommits(t *testing.T) {
	db := open(t, Options{URL: migrated(t), CopyDir: t.TempDir()})
	s := db.Revocations()
	set := revocation.NewSet(s, time.Minute, time.Now)
	first := add(t, s, keyRecord("first"))
	for i := range 3 {
		add(t, s, keyRecord(fmt.Sprint("lost ", i)))
	}
	syncs(t, set)
	loseAfter(t, db, first.Revision)
	add(t, s, keyRecord("new"))
	syncs(t, set)
	restored := revocation.NewSet(s, time.Minute, time.Now)
	if err := restored.Restore(); err != nil || !restored.Key("new") || restored.Len() != 2 {
		t.Errorf("%d records in the copy, %v", restored.Len(), err)
	}
}

// The file is written anew when it has grown, and when it could not be written for a while.
func TestRevocationCopy_WrittenAnew(t *testing.T) {
	url, dir := migrated(t), t.TempDir()
	db := open(t, Options{URL: url, CopyDir: dir})
	r := db.Revocations().Reader().(*revocationReader)
	after := uint64(0)
	read := func() {
		t.Helper()
		page, err := r.Since(t.Context(), after, copyPage)
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range page {
			after = record.Revision
		}
	}
	held := func() (n int) {
		t.Helper()
		if _, err := r.ReadCopy(func(revocation.Record) { n++ }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	s := db.Revocations()
	for i := range 20 {
		account := revocation.Record{Kind: revocation.KindAccount, Value: "acme", At: revocationtest.Now(), Before: revocationtest.Now().Add(time.Duration(i))}
		add(t, s, account)
		read()
	}
	if n := held(); n != 20 {
		t.Errorf("%d entries, want one for each change", n)
	}
	r.copy.mayGrow = 0
	read()
	if n := held(); n != 1 {
		t.Errorf("%d entries in the new file, want 1", n)
	}
	r.copy.mayGrow = copyMayGrow

	r.copy.mu.Lock()
	_ = r.copy.w.Close() // as a full disk would
	r.copy.mu.Unlock()
	add(t, s, keyRecord("key_1"))
	read()
	add(t, s, keyRecord("key_2"))
	read()
	if n := held(); n != 1 {
		t.Errorf("%d entries, and the file could not be written", n)
	}
	r.copy.failed = time.Now().Add(-2 * copyRetry)
	read()
	if n := held(); n != 3 {
		t.Errorf("%d entries after the file could be written again, want 3", n)
	}
	add(t, s, keyRecord("key_3"))
	read()
	if n := held(); n != 4 {
		t.Errorf("%d entries, want 4", n)
	}
}
