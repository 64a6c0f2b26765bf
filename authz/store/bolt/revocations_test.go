package bolt_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// change writes to a file with bbolt alone.
func change(t *testing.T, path string, fn func(tx *bbolt.Tx) error) {
	t.Helper()
	raw, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(raw.Update(fn), raw.Close()); err != nil {
		t.Fatal(err)
	}
}

// expiring makes a file with revocations, every second of which expires, and closes it.
func expiring(t *testing.T, n int) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "tollkeeper.db")
	db := openIn(t, path)
	for i := range n {
		r := revokedToken(i)
		if i%2 == 1 {
			r.ExpiresAt = time.Time{}
		}
		if _, err := db.Revocations().Add(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	checkAndClose(t, db)
	return path
}

// prunes opens a file, checks it, prunes what expires, and checks it again.
func prunes(t *testing.T, path string, forgotten, left int) {
	t.Helper()
	db := openIn(t, path)
	defer checkAndClose(t, db)
	if err := db.Check(t.Context()); err != nil {
		t.Errorf("once it is open: %v", err)
	}
	n, err := db.Revocations().Prune(t.Context(), revokedToken(1_000_000).ExpiresAt, 1000)
	if err != nil || n != forgotten {
		t.Errorf("%d were forgotten, want %d: %v", n, forgotten, err)
	}
	if feed, err := db.Revocations().Since(t.Context(), 0, 1000); err != nil || len(feed) != left {
		t.Errorf("%d are left, want %d: %v", len(feed), left, err)
	}
}

// TestOpen_OlderVersions opens files from before there was a bucket for expiries, and files that have it and were then written
// to by such a version.
func TestOpen_OlderVersions(t *testing.T) {
	older := func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("expiries")) }
	t.Run("never had it", func(t *testing.T) {
		path := expiring(t, 20)
		change(t, path, older)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := inspect(t, path, content); err != nil {
			t.Errorf("inspected before it is opened: %v", err)
		}
		prunes(t, path, 10, 10)
		prunes(t, path, 0, 10)
	})
	t.Run("has nothing in it", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "tollkeeper.db")
		checkAndClose(t, openIn(t, path))
		change(t, path, older)
		prunes(t, path, 0, 0)
	})
	t.Run("was written to without it", func(t *testing.T) {
		path := expiring(t, 20)
		change(t, path, func(tx *bbolt.Tx) error {
			return errors.Join(addAsBefore(tx, 100, time.Hour), addAsBefore(tx, 0, 100*time.Hour), addAsBefore(tx, 2, 0))
		})
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := inspect(t, path, content); err != nil {
			t.Errorf("inspected before it is opened: %v", err)
		}
		prunes(t, path, 9, 12)
	})
	t.Run("is damaged", func(t *testing.T) {
		path := expiring(t, 20)
		change(t, path, func(tx *bbolt.Tx) error {
			key, _ := tx.Bucket([]byte("revoked")).Cursor().First()
			return errors.Join(older(tx), tx.Bucket([]byte("revoked")).Put(key, []byte(`{"kind":`)))
		})
		refuses(t, path, bolt.Options{Pepper: "none"}, authz.KindConflict, "record")
	})
}

// addAsBefore writes a record as an older version did: it replaces an earlier one, and does not index its expiry.
func addAsBefore(tx *bbolt.Tx, i int, life time.Duration) error {
	r := revokedToken(i)
	r.ExpiresAt = r.At.Add(life)
	if life == 0 {
		r.ExpiresAt = time.Time{}
	}
	records, revisions := tx.Bucket([]byte("revoked")), tx.Bucket([]byte("revisions"))
	key := fmt.Appendf(nil, "\x03%s%c%s%s", r.Kind, len(r.Issuer), r.Issuer, r.Value)
	if text := records.Get(key); text != nil {
		var old revocation.Record
		if err := errors.Join(json.Unmarshal(text, &old), revisions.Delete(revisionKey(old.Revision))); err != nil {
			return err
		}
	}
	revision, err := revisions.NextSequence()
	if err != nil {
		return err
	}
	r.Revision = revision
	text, err := json.Marshal(r)
	return errors.Join(err, records.Put(key, text), revisions.Put(revisionKey(revision), key))
}

func revisionKey(n uint64) []byte { return []byte{0, 0, 0, 0, 0, 0, byte(n >> 8), byte(n)} }

// TestCheck_FindsDamagedExpiries damages the bucket of expiries: Check notices, and no record is forgotten for it.
func TestCheck_FindsDamagedExpiries(t *testing.T) {
	first := func(tx *bbolt.Tx) (*bbolt.Bucket, []byte) {
		b := tx.Bucket([]byte("expiries"))
		key, _ := b.Cursor().First()
		return b, key
	}
	for name, c := range map[string]struct {
		damage    func(tx *bbolt.Tx) error
		words     string
		forgotten int
	}{
		"an entry is gone": {func(tx *bbolt.Tx) error {
			b, key := first(tx)
			return b.Delete(key)
		}, "not found by the instant", 9},
		"an entry leads nowhere": {func(tx *bbolt.Tx) error {
			b, key := first(tx)
			return b.Put(append(key[:12:12], "nowhere"...), nil)
		}, "11 entries for 10", 10},
		"an entry has the wrong instant": {func(tx *bbolt.Tx) error {
			b, key := first(tx)
			wrong := append([]byte(nil), key...)
			wrong[0] = 0
			return errors.Join(b.Delete(key), b.Put(wrong, nil))
		}, "not found by the instant", 9},
		"an entry is cut short": {func(tx *bbolt.Tx) error {
			b, _ := first(tx)
			return b.Put([]byte("short"), nil)
		}, "11 entries for 10", 10},
		"an entry is for a record that does not expire": {func(tx *bbolt.Tx) error {
			b, key := first(tx)
			permanent := append([]byte(nil), key...)
			permanent[len(permanent)-1]++ // every second one does not expire
			return b.Put(permanent, nil)
		}, "11 entries for 10", 10},
	} {
		t.Run(name, func(t *testing.T) {
			path := expiring(t, 20)
			change(t, path, c.damage)
			db := openIn(t, path)
			defer func() { _ = db.Close() }()
			if err := db.Check(t.Context()); authz.KindOf(err) != authz.KindConflict || !strings.Contains(err.Error(), c.words) {
				t.Errorf("check: %v", err)
			}
			if n, err := db.Revocations().Prune(t.Context(), revokedToken(1_000_000).ExpiresAt, 1000); err != nil || n != c.forgotten {
				t.Errorf("%d were forgotten, want %d: %v", n, c.forgotten, err)
			}
			if feed, err := db.Revocations().Since(t.Context(), 0, 1000); err != nil || len(feed) != 20-c.forgotten {
				t.Errorf("%d are left: %v", len(feed), err)
			}
		})
	}
}

// TestRevocations_LongestRecord keeps a record whose names are as long as they may be.
func TestRevocations_LongestRecord(t *testing.T) {
	db := open(t, time.Now)
	r := revocation.Record{
		Kind: revocation.KindSigningKey, Issuer: strings.Repeat("i", 1024), Value: strings.Repeat("v", 1024),
		At: time.Unix(0, 0).UTC(), ExpiresAt: time.Unix(1, 0).UTC(),
	}
	s := revocation.NewSet(db.Revocations(), time.Minute, time.Now)
	if _, err := s.Revoke(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := s.Prune(t.Context()); err != nil || s.Len() != 0 {
		t.Errorf("%d records, %v", s.Len(), err)
	}
	r.Value = strings.Repeat("v", bbolt.MaxKeySize)
	if _, err := db.Revocations().Add(t.Context(), r); authz.KindOf(err) != authz.KindInvalid || err == nil {
		t.Errorf("a record that does not fit: %v", err)
	}
}

// TestRevocations_MarkSurvivesARestart reads the mark that the process before left.
func TestRevocations_MarkSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	db := openIn(t, path)
	if m, err := db.Revocations().Mark(t.Context()); err != nil || m != (revocation.Mark{}) {
		t.Errorf("of a new file: %+v, %v", m, err)
	}
	want := revocation.Mark{Good: time.Date(2024, 5, 15, 12, 0, 0, 1, time.UTC), Seen: time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC), Held: time.Hour}
	if err := db.Revocations().SetMark(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	checkAndClose(t, db)
	again := openIn(t, path)
	defer checkAndClose(t, again)
	if m, err := again.Revocations().Mark(t.Context()); err != nil || m != want {
		t.Errorf("%+v, %v, want %+v", m, err, want)
	}
}
