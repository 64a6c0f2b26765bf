package postgres

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keycache"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/localcopy"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

// ownServer starts a server that a test may end, and returns the URL of a database with the schema.
func ownServer(t testing.TB, o pgtest.Options) (*pgtest.Server, string) {
	t.Helper()
	server, err := pgtest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	if err := server.CreateDatabase("d"); err != nil {
		t.Fatal(err)
	}
	url := server.URL("d")
	if _, _, err := Migrate(t.Context(), Options{URL: url}); err != nil {
		t.Fatal(err)
	}
	return server, url
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestKeys_DatabaseAway kills the server under a node, and starts it again.
func TestKeys_DatabaseAway(t *testing.T) {
	const maxStaleness = 4 * time.Second
	server, url := ownServer(t, pgtest.Options{Fast: true})
	keys := callers("k", 3)
	importKeys(t, open(t, Options{URL: url}).Keys(), keys)
	s := open(t, Options{URL: url, MaxStaleness: maxStaleness}).Keys()
	found(t, s, &keys[0])
	must(t, server.Kill())
	away := time.Now()
	found(t, s, &keys[0])
	refusedAs(t, s, "unknown", authz.KindNotFound)
	refusedAs(t, s, keys[1].ID, authz.KindUnavailable) // its record was never read
	if _, err := s.AmendKey(t.Context(), keys[0].ID, apikey.KeyChange{}); authz.KindOf(err) != authz.KindUnavailable {
		t.Errorf("a write: %v", err)
	}
	if _, err := s.Key(t.Context(), keys[0].ID); authz.KindOf(err) != authz.KindUnavailable {
		t.Errorf("a read by id: %v", err)
	}
	waitUntil(t, "the node notices", func() bool { return s.db.gate.pass() != nil })
	waitUntil(t, "the keys are too old", func() bool {
		_, err := s.Find(t.Context(), keys[0].Digest)
		if err == nil && time.Since(away) > maxStaleness {
			t.Fatalf("a key is served %s after the database was last seen", time.Since(away))
		}
		return err != nil
	})
	t.Logf("served for %s of %s", time.Since(away).Round(time.Millisecond), maxStaleness)
	if after := time.Since(away); after < maxStaleness/2 {
		t.Errorf("served for %s only", after)
	}
	refusedAs(t, s, keys[0].ID, authz.KindUnavailable)
	refusedAs(t, s, "unknown", authz.KindUnavailable)
	if _, err := s.Account(t.Context(), keys[0].Account); authz.KindOf(err) != authz.KindUnavailable {
		t.Errorf("an account: %v", err)
	}
	must(t, server.Start())
	back := time.Now()
	waitUntil(t, "the keys are back", func() bool { _, err := s.Find(t.Context(), keys[1].Digest); return err == nil })
	t.Logf("back after %s", time.Since(back).Round(time.Millisecond))
	found(t, s, &keys[0])
	if _, err := s.AmendKey(t.Context(), keys[0].ID, apikey.KeyChange{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	if k, err := s.Find(t.Context(), keys[0].Digest); err != nil || !k.Disabled {
		t.Errorf("%+v, %v", k, err)
	}
}

// copied waits until the copy in a folder is as new as what the node holds now.
func copied(t testing.TB, s *Keys) {
	t.Helper()
	since := time.Now()
	waitUntil(t, "the copy is up to date", func() bool {
		mark, err := localcopy.Read(s.feed.copy.path, s.feed.copy.head(), func(byte, []byte) error { return nil })
		return err == nil && mark.At.After(since)
	})
}

// TestKeys_StartFromCopy starts nodes while the server is away.
func TestKeys_StartFromCopy(t *testing.T) {
	server, url := ownServer(t, pgtest.Options{Fast: true})
	dir, keys := t.TempDir(), callers("k", 6)
	// The first node copies what it has at the start, what it reads, writes and hears of later.
	other := open(t, Options{URL: url}).Keys()
	importKeys(t, other, keys[:4])
	db := open(t, Options{URL: url, CopyDir: dir, MaxStaleness: 2 * time.Second})
	s := db.Keys()
	found(t, s, &keys[0])
	found(t, s, &keys[3])
	copied(t, s)
	s.held.Load().cache.DropKey(keys[3].Digest) // as if it had not been used for a while
	found(t, s, &keys[1])
	importKeys(t, other, keys[4:5])
	for _, k := range []*apikey.Key{&keys[3], &keys[2], &keys[0]} { // one that is in the copy only, one nowhere, and one in use
		if _, err := other.AmendKey(t.Context(), k.ID, apikey.KeyChange{Disabled: new(true)}); err != nil {
			t.Fatal(err)
		}
	}
	waitUntil(t, "the changes arrive", func() bool {
		k, err := s.Find(t.Context(), keys[0].Digest)
		return err == nil && k.Disabled && s.held.Load().cache.MayHave(keys[4].Digest)
	})
	if _, err := s.CreateAccount(t.Context(), apikey.Account{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	copied(t, s)
	installation := db.Installation()
	must(t, db.Close())
	must(t, server.Kill())

	start := func(o Options) *Keys {
		t.Helper()
		o.URL, o.CopyDir, o.MayBeAway = url, dir, true
		return open(t, o).Keys()
	}
	s = start(Options{MaxStaleness: time.Hour, Installation: installation})
	found(t, s, &keys[1])
	if k, err := s.Find(t.Context(), keys[0].Digest); err != nil || !k.Disabled {
		t.Errorf("a key that was switched off: %+v, %v", k, err)
	}
	if a, err := s.Account(t.Context(), "acme"); err != nil || a.ID != "acme" {
		t.Errorf("an account of the node: %+v, %v", a, err)
	}
	for _, k := range []*apikey.Key{&keys[2], &keys[3], &keys[4]} {
		refusedAs(t, s, k.ID, authz.KindUnavailable) // known, but not in use
	}
	refusedAs(t, s, keys[5].ID, authz.KindNotFound)
	if age, ok := s.Age(); !ok || age <= 0 || age > time.Minute {
		t.Errorf("age %s, %v", age, ok)
	}

	unusable := map[string]*Keys{
		"too old":              start(Options{MaxStaleness: time.Millisecond, Installation: installation}),
		"another pepper":       start(Options{MaxStaleness: time.Hour, Installation: installation, Pepper: "another"}),
		"another installation": start(Options{MaxStaleness: time.Hour, Installation: "00000000-0000-0000-0000-000000000000"}),
		"no copy":              open(t, Options{URL: url, MayBeAway: true, CopyDir: t.TempDir(), MaxStaleness: time.Hour}).Keys(),
	}
	for name, s := range unusable {
		for _, k := range []*apikey.Key{&keys[1], &keys[5]} {
			if got, err := s.Find(t.Context(), k.Digest); authz.KindOf(err) != authz.KindUnavailable || err == nil {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		}
	}

	// The server comes back, with changes that the copy does not have.
	must(t, server.Start())
	waitUntil(t, "the server takes writes", func() bool {
		_, err := other.AmendKey(t.Context(), keys[1].ID, apikey.KeyChange{Disabled: new(true)})
		return err == nil
	})
	for name, s := range map[string]*Keys{"from the copy": s, "too old": unusable["too old"], "no copy": unusable["no copy"]} {
		if name == "too old" {
			continue // a millisecond is too short for a feed
		}
		waitUntil(t, name+": the key is off", func() bool { k, err := s.Find(t.Context(), keys[1].Digest); return err == nil && k.Disabled })
		waitUntil(t, name+": the others are read", func() bool { _, err := s.Find(t.Context(), keys[3].Digest); return err == nil })
	}
}

// TestKeys_CopyIsWrittenAnew has a copy begin again while keys change: what it holds at the end is what memory holds.
func TestKeys_CopyIsWrittenAnew(t *testing.T) {
	url, dir := migrated(t), t.TempDir()
	db := open(t, Options{URL: url, CopyDir: dir, MaxStaleness: time.Second, copySlack: -1 << 30})
	s, keys := db.Keys(), callers("k", 300)
	importKeys(t, s, keys)
	copied(t, s)
	for i := range 200 {
		if _, err := s.AmendKey(t.Context(), keys[i].ID, apikey.KeyChange{Name: new("amended")}); err != nil {
			t.Fatal(err)
		}
		found(t, s, &keys[100+i])
	}
	copied(t, s)
	cache := s.held.Load().cache
	must(t, db.Close())
	again := keycache.New(nil)
	if _, err := localcopy.Read(filepath.Join(dir, keyCopyName), s.feed.copy.head(), func(kind byte, body []byte) error {
		return readCopy(again, kind, body)
	}); err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		want, ok := cache.HeldKey(k.Digest)
		got, ok2 := again.HeldKey(k.Digest)
		wantAccount, ok3 := cache.HeldAccount(k.Account)
		gotAccount, ok4 := again.HeldAccount(k.Account)
		if want != got || ok != ok2 || wantAccount != gotAccount || ok3 != ok4 || !again.MayHave(k.Digest) {
			t.Fatalf("key %d: %v %q %v %q, account %v %q %v %q", i, ok, want, ok2, got, ok3, wantAccount, ok4, gotAccount)
		}
	}
}

// TestKeyCopy_ChangesWhileItIsWritten changes and reads keys between the beginning of a copy and its end.
func TestKeyCopy_ChangesWhileItIsWritten(t *testing.T) {
	s, keys := open(t, Options{URL: migrated(t), CopyDir: t.TempDir()}).Keys(), callers("k", 3)
	importKeys(t, s, keys)
	found(t, s, &keys[0])
	s.feed.close()
	c := s.feed.copy
	c.restart()
	must(t, c.write(&s.feed)) // begins it
	<-c.whole.done
	if _, err := s.AmendKey(t.Context(), keys[0].ID, apikey.KeyChange{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	found(t, s, &keys[1])
	must(t, c.write(&s.feed))
	again := keycache.New(nil)
	if _, err := localcopy.Read(c.path, c.head(), func(kind byte, body []byte) error { return readCopy(again, kind, body) }); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys[:2] {
		want, _ := s.held.Load().cache.HeldKey(k.Digest)
		if got, ok := again.HeldKey(k.Digest); got != want || !ok {
			t.Errorf("%s: %q, want %q", k.ID, got, want)
		}
	}
}

// TestKeys_CopyCannotBeWritten says so and serves.
func TestKeys_CopyCannotBeWritten(t *testing.T) {
	s := open(t, Options{URL: migrated(t), CopyDir: filepath.Join(t.TempDir(), "nowhere"), MaxStaleness: time.Second}).Keys()
	keys := callers("k", 1)
	importKeys(t, s, keys)
	waitUntil(t, "it was tried", func() bool { age, ok := s.Age(); return ok && age < time.Second })
	found(t, s, &keys[0])
}

// TestReadCopy_Hostile reads entries that no copy has.
func TestReadCopy_Hostile(t *testing.T) {
	cache := keycache.New(nil)
	for kind := range byte(7) {
		for size := range 40 {
			if err := readCopy(cache, kind, make([]byte, size)); err != nil && !errors.Is(err, errDamagedCopy) {
				t.Error(err)
			}
		}
	}
	if err := readCopy(cache, copyAccount, []byte{255, 255, 1}); !errors.Is(err, errDamagedCopy) {
		t.Error(err)
	}
}
