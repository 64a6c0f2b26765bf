package bolt

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// oldFile unpacks a file that a binary of format 1 wrote. It has accounts and keys with odd names, times and meta, some of them
// amended, rotated or imported, and revocations, a lease, credits and a settlement.
func oldFile(t *testing.T) (path string) {
	t.Helper()
	packed, err := os.Open("testdata/format1.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = packed.Close() }()
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "tollkeeper.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// oldRecords are the keys and accounts of a file of format 1, as JSON, by id.
func oldRecords(t *testing.T, path string) (keys, accounts map[string]string) {
	t.Helper()
	file, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	keys, accounts = make(map[string]string), make(map[string]string)
	_ = file.View(func(tx *bbolt.Tx) error {
		_ = tx.Bucket([]byte(bucketKeys)).ForEach(func(id, text []byte) error {
			keys[string(id)] = canonical[apikey.Key](t, text)
			return nil
		})
		return tx.Bucket([]byte(bucketAccounts)).ForEach(func(id, text []byte) error {
			accounts[string(id)] = canonical[apikey.Account](t, text)
			return nil
		})
	})
	return keys, accounts
}

// canonical is a record as the version that wrote it answered it.
func canonical[T any](t *testing.T, text []byte) string {
	t.Helper()
	v := new(T)
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
	return asText(t, v)
}

func asText(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// hasAll opens an upgraded file and compares every key and account, by every way to find it.
func hasAll(t *testing.T, path string, keys, accounts map[string]string) {
	t.Helper()
	db, err := Open(path, Options{Pepper: "none"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.Check(t.Context()); err != nil {
		t.Error(err)
	}
	ks, ctx := db.Keys(), t.Context()
	listedKeys, err1 := ks.Keys(ctx, apikey.Page{Limit: 1000})
	listedAccounts, err2 := ks.Accounts(ctx, apikey.Page{Limit: 1000})
	if err := errors.Join(err1, err2); err != nil || len(listedKeys) != len(keys) || len(listedAccounts) != len(accounts) {
		t.Fatalf("%d keys and %d accounts, want %d and %d: %v", len(listedKeys), len(listedAccounts), len(keys), len(accounts), err)
	}
	for _, k := range listedKeys {
		found, err1 := ks.Find(ctx, k.Digest)
		byID, err2 := ks.Key(ctx, k.ID)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		for _, got := range []*apikey.Key{k, found, byID} {
			if got := asText(t, got); got != keys[k.ID] {
				t.Errorf("key\n%s, want\n%s", got, keys[k.ID])
			}
		}
	}
	for _, a := range listedAccounts {
		found, err := ks.Account(ctx, a.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range []*apikey.Account{a, found} {
			if got := asText(t, got); got != accounts[a.ID] {
				t.Errorf("account\n%s, want\n%s", got, accounts[a.ID])
			}
		}
	}
	if r, there, err := db.Revocations().Get(ctx, "key", "", "key_007"); err != nil || !there || r.Cause != "leaked" {
		t.Errorf("a revocation: %+v, %v", r, err)
	}
}

// TestOpen_UpgradesRecords opens a file of format 1: every key and account is as it was, and stays so.
func TestOpen_UpgradesRecords(t *testing.T) {
	path := oldFile(t)
	keys, accounts := oldRecords(t, path)
	if len(keys) < 60 || len(accounts) < 20 || !strings.Contains(keys["key_full"], `"12345678901234567000"`) && !strings.Contains(keys["key_full"], "5e-324") {
		t.Fatalf("the old file has %d keys and %d accounts: %s", len(keys), len(accounts), keys["key_full"])
	}
	for range 2 {
		hasAll(t, path, keys, accounts)
	}
	if _, err := Inspect(path); err != nil {
		t.Error(err)
	}
}

// TestOpen_UpgradeCutShort ends the process after each transaction of an upgrade: the next Open completes it. Until then no
// other command reads the file, and from the first transaction on an older binary refuses it.
func TestOpen_UpgradeCutShort(t *testing.T) {
	source := oldFile(t)
	keys, accounts := oldRecords(t, source)
	refusedByInspect(t, source)
	for steps, more := 0, true; more; steps++ {
		path := filepath.Join(t.TempDir(), fmt.Sprint(steps))
		copyFile(t, source, path)
		file, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		for step := 0; step <= steps && more; step++ {
			if err := file.Update(func(tx *bbolt.Tx) (err error) {
				w := &write{tx: tx}
				if step == 0 {
					return ensureFormat(w, "none")
				}
				more, err = upgradeChunkOf(w, 7)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		_ = file.View(func(tx *bbolt.Tx) error {
			if got := tx.Bucket([]byte(bucketMeta)).Get([]byte("format")); string(got) != "tollkeeper 2" {
				t.Errorf("after %d steps the format is %q", steps, got)
			}
			if got := tx.Bucket([]byte(bucketMeta)).Get(metaRecords); bytes.Equal(got, recordsDone) && more {
				more = false
			}
			return nil
		})
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		if more {
			refusedByInspect(t, path)
		}
		hasAll(t, path, keys, accounts)
		if !more && steps < 20 {
			t.Errorf("the upgrade took %d steps", steps)
		}
	}
}

func refusedByInspect(t *testing.T, path string) {
	t.Helper()
	f, err := Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	err = f.OnPlans(t.Context(), func(apikey.PlanUse) error { return nil })
	if err == nil || authz.KindOf(err) != authz.KindConflict || !strings.Contains(err.Error(), "start the server once") {
		t.Errorf("the plans of a file that is not upgraded: %v", err)
	}
	for _, c := range f.Checks() {
		if err := c.Run(t.Context()); c.Name == "format" && (err == nil || !strings.Contains(err.Error(), "start the server once")) {
			t.Errorf("check of a file that is not upgraded: %v", err)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestOpen_UpgradeOfDamage upgrades files of format 1 in which one record is damaged: it is unavailable, not unknown, all others
// work, and a check of the file finds it.
func TestOpen_UpgradeOfDamage(t *testing.T) {
	full := apikey.Hasher{}.Text("full")
	for name, harm := range map[string]func(tx *bbolt.Tx) error{
		"account that is not JSON": func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucketAccounts)).Put([]byte("acme"), []byte("{")) },
		"another account": func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte(bucketAccounts))
			return b.Put([]byte("acme"), bytes.Clone(b.Get([]byte("account-1"))))
		},
		"key that is not JSON": func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucketKeys)).Put([]byte("key_full"), []byte("{")) },
		"another key": func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte(bucketKeys))
			return b.Put([]byte("key_full"), bytes.Clone(b.Get([]byte("key_bare"))))
		},
		"digest of another key": func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketDigests)).Put(full[:], []byte("key_bare"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := oldFile(t)
			file, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(file.Update(harm), file.Close()); err != nil {
				t.Fatal(err)
			}
			db, err := Open(path, Options{Pepper: "none"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			who := apikey.NewIdentifier(db.Keys(), apikey.Hasher{})
			if k, a := who.Identify(t.Context(), "full", time.Now()); k.Status != authz.KeyUnavailable {
				t.Errorf("the damaged key: %+v, %+v", k, a)
			}
			if k, a := who.Identify(t.Context(), "0", time.Now()); k.ID != "key_000" || a.Status != authz.AccountActive {
				t.Errorf("another key: %+v, %+v", k, a)
			}
			if err := db.Check(t.Context()); authz.KindOf(err) != authz.KindConflict {
				t.Errorf("check: %v", err)
			}
		})
	}
}
