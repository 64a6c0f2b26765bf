package bolt

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// TestCheck_FindsDamagedRecords breaks the file's records one by one.
func TestCheck_FindsDamagedRecords(t *testing.T) {
	key := apikey.Key{ID: "key_1", Account: "acme", Digest: apikey.Hasher{}.Text("1")}
	for name, harm := range map[string]func(*write) error{
		"key without account": func(w *write) error { return w.delete(bucketAccounts, []byte("acme")) },
		"key without digest":  func(w *write) error { return w.delete(bucketDigests, key.Digest[:]) },
		"key under another digest": func(w *write) error {
			return w.put(bucketDigests, make([]byte, 32), bytes.Clone(w.get(bucketDigests, key.Digest[:])))
		},
		"key without id":     func(w *write) error { return w.delete(bucketKeys, []byte("key_1")) },
		"key not listed":     func(w *write) error { return w.delete(bucketAccountKeys, joinKey("acme", "key_1")) },
		"listed without key": func(w *write) error { return w.put(bucketAccountKeys, joinKey("acme", "key_2"), nil) },
		"not a record":       func(w *write) error { return w.put(bucketDigests, key.Digest[:], []byte("{")) },
		"changed record": func(w *write) error {
			changed := bytes.Clone(w.get(bucketDigests, key.Digest[:]))
			changed[len(changed)/2] ^= 1
			return w.put(bucketDigests, key.Digest[:], changed)
		},
		"account in another place": func(w *write) error {
			return w.put(bucketAccounts, []byte("other"), bytes.Clone(w.get(bucketAccounts, []byte("acme"))))
		},
		"id of nothing": func(w *write) error { return w.put(bucketKeys, []byte("key_9"), key.Digest[:]) },
		"shared book that is wrong": func(w *write) error {
			return w.put(bucketBooks, []byte("b"), []byte(`{"prepaid":{"granted":1,"spent":0}}`))
		},
		"book that is wrong": func(w *write) error {
			r := quota.Record{Counts: []quota.Count{{Name: "c", Book: quota.Book{Prepaid: &quota.Page{Granted: 1}}}}}
			text, err := r.AppendBinary(nil)
			return errors.Join(err, w.put(bucketHolders, recordKey(quota.HolderID{Per: "key", Holder: "k"}), text))
		},
		"record that is cut short": func(w *write) error {
			return w.put(bucketHolders, recordKey(quota.HolderID{Per: "key", Holder: "k"}), []byte{1, 9})
		},
		"record of nobody":      func(w *write) error { return w.put(bucketHolders, []byte{9}, []byte{1, 0, 0, 0}) },
		"unknown journal entry": func(w *write) error { return w.put(bucketJournal, []byte("j"), []byte(`{"verb":"steal"}`)) },
		"settlement not listed": func(w *write) error { return w.put(bucketSettled, []byte("s"), []byte(`{}`)) },
		"revision of nothing":   func(w *write) error { return w.put(bucketRevisions, numberKey(9), []byte("x")) },
		"revoked not listed":    func(w *write) error { return w.put(bucketRevoked, []byte("x"), []byte(`{}`)) },
	} {
		t.Run(name, func(t *testing.T) {
			db := openFresh(t, Options{})
			if _, err := db.Keys().Import(t.Context(), []apikey.Key{key}); err != nil {
				t.Fatal(err)
			}
			if err := db.Check(t.Context()); err != nil {
				t.Fatalf("before: %v", err)
			}
			lane := db.commits
			switch name {
			case "book that is wrong", "shared book that is wrong", "record that is cut short", "record of nobody", "unknown journal entry", "settlement not listed":
				lane = db.ledger
			}
			if err := lane.do(t.Context(), harm); err != nil {
				t.Fatal(err)
			}
			if err := db.Check(t.Context()); err == nil {
				t.Fatal("nothing was found")
			}
		})
	}
}

// TestChecks_LogIsGone removes and replaces the log of a DB that is open.
func TestChecks_LogIsGone(t *testing.T) {
	db := openFresh(t, calm())
	logFault := func() error {
		t.Helper()
		for _, c := range db.Checks() {
			if c.Name == partLog {
				return c.Run(t.Context())
			}
		}
		t.Fatal("the log is not checked")
		return nil
	}
	if err := logFault(); err != nil {
		t.Errorf("before the first write: %v", err)
	}
	put(t, db, bucketBooks, "b", "{}")
	if err := logFault(); err != nil {
		t.Error(err)
	}
	copied := killed(t, db)
	if err := os.RemoveAll(logFolder(db.bolt.Path())); err != nil {
		t.Fatal(err)
	}
	if err := logFault(); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("without the folder: %v", err)
	}
	if err := os.Rename(logFolder(copied), logFolder(db.bolt.Path())); err != nil {
		t.Fatal(err)
	}
	if err := logFault(); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("with a copy of the folder: %v", err)
	}
}
