package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

func prepaid() (quota.Bucket, authz.Limit) {
	l := authz.Limit{Name: "credits", Units: 100, Window: authz.WindowNone, Per: authz.PerAccount}
	return quota.Bucket{Per: l.Per, Holder: "acme", Limit: l.Name}, l
}

// TestOpen_FindsEveryWrite makes every kind of write, opens the file again after each, and finds it there.
func TestOpen_FindsEveryWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	at := time.Date(2024, 5, 15, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return at }
	bucket, l := prepaid()
	key := apikey.Key{
		ID: "key_1", Account: "acme", Digest: apikey.Hasher{}.Text("1"), CreatedAt: at, UpdatedAt: at, Lineage: "key_1",
		ExpiresAt: at.In(time.FixedZone("", 3600)), Meta: map[string]any{"number": 1, "deep": map[string]any{"a": []string{"b"}}},
	}
	lease := quotatest.Ask{Node: "a", Seq: 1, Bucket: bucket, Limit: l, Want: 10}
	for _, step := range []struct {
		name  string
		write func(context.Context, *bolt.DB) (any, error)
		read  func(context.Context, *bolt.DB) (any, error)
	}{
		{"create account", func(ctx context.Context, db *bolt.DB) (any, error) {
			return db.Keys().CreateAccount(ctx, apikey.Account{ID: "acme", Status: authz.AccountActive, CreatedAt: at, UpdatedAt: at})
		}, account},
		{"amend account", func(ctx context.Context, db *bolt.DB) (any, error) {
			return db.Keys().AmendAccount(ctx, "acme", apikey.AccountChange{At: at, Plan: new("pro")})
		}, account},
		{"create key", func(ctx context.Context, db *bolt.DB) (any, error) { return db.Keys().CreateKey(ctx, key) }, byID("key_1")},
		{"amend key", func(ctx context.Context, db *bolt.DB) (any, error) {
			return db.Keys().AmendKey(ctx, "key_1", apikey.KeyChange{At: at, Disabled: new(true)})
		}, byDigest("1")},
		{"rotate key", func(ctx context.Context, db *bolt.DB) (any, error) {
			old, _, err := db.Keys().RotateKey(ctx, "key_1", apikey.SuccessorOf(&key, "key_2", apikey.Hasher{}.Text("2"), at), at)
			return old, err
		}, byID("key_1")},
		{"amend successor", func(ctx context.Context, db *bolt.DB) (any, error) {
			return db.Keys().AmendKey(ctx, "key_2", apikey.KeyChange{At: at, Name: new("next")})
		}, byDigest("2")},
		{"import", func(ctx context.Context, db *bolt.DB) (any, error) {
			imported := key
			imported.ID, imported.Account, imported.Digest = "key_3", "other", apikey.Hasher{}.Text("3")
			if _, err := db.Keys().Import(ctx, []apikey.Key{imported}); err != nil {
				return nil, err
			}
			got, err := db.Keys().Import(ctx, []apikey.Key{imported}) // with numbers that JSON changes
			if err != nil || got.Unchanged != 1 {
				return nil, fmt.Errorf("imported again: %+v, %w", got, err)
			}
			return db.Keys().Key(ctx, "key_3")
		}, byDigest("3")},
		{"revoke", func(ctx context.Context, db *bolt.DB) (any, error) {
			return db.Revocations().Add(ctx, revocation.Record{Kind: revocation.KindKey, Value: "key_1", At: at})
		}, func(ctx context.Context, db *bolt.DB) (any, error) {
			r, _, err := db.Revocations().Get(ctx, revocation.KindKey, "", "key_1")
			return r, err
		}},
		{"revoke for a while", func(ctx context.Context, db *bolt.DB) (any, error) {
			return db.Revocations().Add(ctx, revokedToken(1))
		}, feed},
		{"prune", func(ctx context.Context, db *bolt.DB) (any, error) {
			if n, err := db.Revocations().Prune(ctx, revokedToken(2).ExpiresAt, 10); err != nil || n != 1 {
				return nil, fmt.Errorf("%d were forgotten: %w", n, err)
			}
			return feed(ctx, db)
		}, feed},
		{"lease", func(ctx context.Context, db *bolt.DB) (any, error) { return lease.Send(ctx, db.Ledger()) },
			func(ctx context.Context, db *bolt.DB) (any, error) { return lease.Send(ctx, db.Ledger()) }},
		{"return", func(ctx context.Context, db *bolt.DB) (any, error) {
			back := quotatest.Ask{Node: "a", Seq: 2, Bucket: bucket, Limit: l, Spent: 5, Back: 5}
			if _, err := back.Send(ctx, db.Ledger()); err != nil {
				return nil, err
			}
			return balance(ctx, db)
		}, balance},
		{"settle", func(ctx context.Context, db *bolt.DB) (any, error) {
			return db.Ledger().Settle(ctx, quota.SettleRequest{ID: "s", Bucket: bucket, Limit: l, Estimate: 3, Actual: 1})
		}, func(ctx context.Context, db *bolt.DB) (any, error) {
			return db.Ledger().Settle(ctx, quota.SettleRequest{ID: "s", Bucket: bucket, Limit: l, Estimate: 3})
		}},
		{"credit", credit, credit},
		{"reset", reset, reset},
	} {
		wrote, err := on(path, clock, step.write)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		read, err := on(path, clock, step.read)
		if err != nil {
			t.Fatalf("%s, opened again: %v", step.name, err)
		}
		if a, b := fmt.Sprintf("%+v", deref(wrote)), fmt.Sprintf("%+v", deref(read)); a != b {
			t.Errorf("%s returned\n%s, and when opened again there is\n%s", step.name, a, b)
		}
	}
}

// on opens the file, runs a function, checks, and closes.
func on(path string, now func() time.Time, run func(context.Context, *bolt.DB) (any, error)) (any, error) {
	db, err := bolt.Open(path, bolt.Options{Now: now})
	if err != nil {
		return nil, err
	}
	out, err := run(context.Background(), db)
	return out, errors.Join(err, db.Check(context.Background()), db.Close())
}

func deref(v any) any {
	switch v := v.(type) {
	case *apikey.Key:
		return *v
	case *apikey.Account:
		return *v
	}
	return v
}

func account(ctx context.Context, db *bolt.DB) (any, error) { return db.Keys().Account(ctx, "acme") }

func byID(id string) func(context.Context, *bolt.DB) (any, error) {
	return func(ctx context.Context, db *bolt.DB) (any, error) { return db.Keys().Key(ctx, id) }
}

func byDigest(text string) func(context.Context, *bolt.DB) (any, error) {
	return func(ctx context.Context, db *bolt.DB) (any, error) {
		return db.Keys().Find(ctx, apikey.Hasher{}.Text(text))
	}
}

// feed is the last revocation of all.
func feed(ctx context.Context, db *bolt.DB) (any, error) {
	records, err := db.Revocations().Since(ctx, 0, 1000)
	if err != nil || len(records) == 0 {
		return nil, err
	}
	return records[len(records)-1], nil
}

func balance(ctx context.Context, db *bolt.DB) (any, error) {
	bucket, l := prepaid()
	return db.Ledger().Balance(ctx, bucket, l)
}

func credit(ctx context.Context, db *bolt.DB) (any, error) {
	bucket, l := prepaid()
	return db.Ledger().Credit(ctx, quota.CreditRequest{ID: "c", Bucket: bucket, Limit: l, Units: 7})
}

func reset(ctx context.Context, db *bolt.DB) (any, error) {
	l := authz.Limit{Name: "requests", Units: 10, Window: authz.WindowHour}
	return db.Ledger().Reset(ctx, quota.ResetRequest{ID: "r", Bucket: quota.Bucket{Holder: "acme"}, Limit: l})
}

// refuses checks that Open fails in time, with one line of that kind that has those words.
func refuses(t *testing.T, path string, o bolt.Options, kind authz.Kind, words string) {
	t.Helper()
	began := time.Now()
	db, err := bolt.Open(path, o)
	if err == nil {
		_ = db.Close()
		t.Fatalf("%s was opened", path)
	}
	if authz.KindOf(err) != kind || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error of kind %s: %v", authz.KindOf(err), err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v to say so", took)
	}
}

func TestOpen_MakesDirectoryAndFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "tollkeeper.db")
	db := openIn(t, path)
	defer func() { _ = db.Close() }()
	for name, want := range map[string]os.FileMode{dir: os.ModeDir | 0o700, filepath.Dir(dir): os.ModeDir | 0o700, path: 0o600} {
		info, err := os.Stat(name)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestOpen_FileInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	db := openIn(t, path)
	refuses(t, path, bolt.Options{Pepper: "none"}, authz.KindUnavailable, "in use by another process")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := openIn(t, path).Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpen_AnotherPepper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	if err := openIn(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	refuses(t, path, bolt.Options{Pepper: "another"}, authz.KindConflict, "another pepper")
	refuses(t, path, bolt.Options{}, authz.KindConflict, "another pepper")
	if err := openIn(t, path).Close(); err != nil {
		t.Fatalf("a refusal spoiled the file: %v", err)
	}
}

func TestOpen_ForeignFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	garbage := make([]byte, 100_000)
	for i := range garbage {
		garbage[i] = byte(rand.Uint32())
	}
	refuses(t, dir, bolt.Options{}, authz.KindConflict, "is not a file")
	refuses(t, write("empty", nil), bolt.Options{}, authz.KindConflict, "is empty")
	refuses(t, write("short", []byte("x")), bolt.Options{}, authz.KindConflict, "damaged")
	refuses(t, write("text", bytes.Repeat([]byte("hello\n"), 10_000)), bolt.Options{}, authz.KindConflict, "damaged")
	refuses(t, write("garbage", garbage), bolt.Options{}, authz.KindConflict, "damaged")
	refuses(t, write("zeros", make([]byte, 100_000)), bolt.Options{}, authz.KindConflict, "damaged")
	refuses(t, filepath.Join(write("file", nil), "tollkeeper.db"), bolt.Options{}, authz.KindUnavailable, "directory")

	other := filepath.Join(dir, "other")
	db, err := bbolt.Open(other, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err }), db.Close()); err != nil {
		t.Fatal(err)
	}
	refuses(t, other, bolt.Options{}, authz.KindConflict, "not a tollkeeper data file")

	future := filepath.Join(dir, "future")
	if err := openIn(t, future).Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = bbolt.Open(future, 0o600, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte("tollkeeper 3"))
	}), db.Close()); err != nil {
		t.Fatal(err)
	}
	refuses(t, future, bolt.Options{Pepper: "none"}, authz.KindConflict, `"tollkeeper 3"`)
}

// TestKeys_OneDamagedRecord damages the record of one key: it is unavailable, not unknown, and other keys are found.
func TestKeys_OneDamagedRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	keys := manyKeys(2)
	db := openIn(t, path)
	importAll(t, db, keys, 2)
	checkAndClose(t, db)
	raw, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(raw.Update(func(tx *bbolt.Tx) error {
		record := bytes.Clone(tx.Bucket([]byte("digests")).Get(keys[0].Digest[:]))
		record[5] ^= 1
		return tx.Bucket([]byte("digests")).Put(keys[0].Digest[:], record)
	}), raw.Close()); err != nil {
		t.Fatal(err)
	}
	db = openIn(t, path)
	defer func() { _ = db.Close() }()
	if _, err := db.Keys().Find(t.Context(), keys[0].Digest); err == nil || authz.KindOf(err) != authz.KindUnavailable {
		t.Errorf("the damaged key: %v", err)
	}
	if k, err := db.Keys().Find(t.Context(), keys[1].Digest); err != nil || k.ID != keys[1].ID {
		t.Errorf("the other key: %v", err)
	}
	if err := db.Check(t.Context()); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("check: %v", err)
	}
}

// sample is the content of a file with records of every kind.
func sample(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	db := openIn(t, path)
	importAll(t, db, manyKeys(600), 100)
	bucket, l := prepaid()
	for i := range 30 {
		ask := quotatest.Ask{Node: quota.NodeID(fmt.Sprint(i)), Bucket: bucket, Limit: l, Want: 1}
		if _, err := ask.Send(t.Context(), db.Ledger()); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Revocations().Add(t.Context(), revocation.Record{Kind: revocation.KindKey, Value: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Revocations().Add(t.Context(), revokedToken(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := credit(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	checkAndClose(t, db)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// tryDamaged inspects a file, opens it, and uses it if that succeeds. Whatever is wrong with it, nothing may panic or hang, and if
// it cannot be opened, inspecting it says why.
func tryDamaged(t *testing.T, path string, content []byte) (opened bool) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	found := inspect(t, path, content)
	db, err := bolt.Open(path, bolt.Options{Pepper: "none"})
	if err != nil {
		if found == nil && !strings.Contains(err.Error(), "another pepper") {
			t.Errorf("inspecting it found nothing: %v", err)
		}
		if authz.KindOf(err) != authz.KindConflict || strings.Contains(err.Error(), "\n") {
			t.Errorf("error of kind %s: %v", authz.KindOf(err), err)
		}
		return false
	}
	ctx := t.Context()
	_ = db.Check(ctx)
	_, _ = db.Keys().Keys(ctx, apikey.Page{Limit: 1000})
	_, _ = db.Revocations().Since(ctx, 0, 1000)
	_, _ = db.Revocations().Prune(ctx, revokedToken(15).ExpiresAt, 1000)
	_, _ = credit(ctx, db)
	_, _ = db.Keys().CreateAccount(ctx, apikey.Account{ID: "after the damage"})
	_ = db.Close()
	return true
}

func TestOpen_TruncatedFile(t *testing.T) {
	content, path := sample(t), filepath.Join(t.TempDir(), "tollkeeper.db")
	last := len(bytes.TrimRight(content, "\x00"))
	for _, size := range []int{1, 15, 100, 4095, 4096, 4097, 8192, 8193, 16384, last / 2, last / 3, last - 4096} {
		if tryDamaged(t, path, content[:size]) {
			t.Errorf("a file of which %d of %d bytes are left was opened", size, last)
		}
	}
}

func TestOpen_FlippedBits(t *testing.T) {
	content, path := sample(t), filepath.Join(t.TempDir(), "tollkeeper.db")
	last := len(bytes.TrimRight(content, "\x00"))
	opened := 0
	const rounds = 60
	for i := range rounds {
		damaged := bytes.Clone(content)
		switch at := rand.IntN(last); i % 3 {
		case 0: // one bit anywhere
			damaged[at] ^= 1 << rand.IntN(8)
		case 1: // one byte in the head of a page, where its structure is
			damaged[at/4096*4096+rand.IntN(64)] = byte(rand.Uint32())
		case 2: // one page in the place of another
			copy(damaged[at/4096*4096:][:4096], content[rand.IntN(last)/4096*4096:])
		}
		if tryDamaged(t, path, damaged) {
			opened++
		}
		if t.Failed() {
			t.Fatalf("round %d", i)
		}
	}
	t.Logf("%d of %d were opened: the damage was in what is not used, or in the text of a record", opened, rounds)
}
