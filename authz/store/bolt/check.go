package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// part is a part of the file that can be checked by itself. Its row stands beside its code, below.
type part struct {
	name   string
	claim  string // what is true of a sound file
	remedy string
	guards bool // the parts after it can only be read if it is sound
	ledger bool // it is in the write-ahead log, too
	check  func(*snapshot) error
}

// The remedies. No command of ours writes a book whose sums are wrong, so that damage is a bug of ours.
const (
	restoreBackup = "Stop the server, remove the folder tollkeeper.db-log, and restore tollkeeper.db from a backup."
	stopServer    = "Stop the server with SIGTERM and never with SIGKILL: it moves everything into tollkeeper.db, which needs no folder then."
	restoreLog    = "Restore tollkeeper.db and the folder tollkeeper.db-log as they were at one instant, or a backup of a server that was stopped."
	reportBug     = "Keep a copy of tollkeeper.db and report this: no command of tollkeeper leads there. Restore a backup to go on from."
)

// Parts that a file has only when a server may open it.
const (
	partFormat = "format"
	partLog    = "log"
)

// parts are in the order in which they have to be checked: on damaged pages nothing else may be read, and without the
// buckets of our format there is nothing to read.
func parts() []part {
	return []part{
		{"pages", "Every page of the file is sound, and in one place only.", restoreBackup, true, false, inFile(checkPages)},
		{partFormat, "The file is of the format that this version reads.",
			"If the file is damaged, restore a backup. If it is older, start the server once. Else use the version of tollkeeper that wrote it.", true, false, inFile(checkCurrent)},
		{partLog, "Every record of the write-ahead log can be read, and none is missing.", restoreLog, true, true, checkLog},
		{"accounts", "Every account can be read, under its own id.", restoreBackup, false, false, inFile(checkAccounts)},
		{"keys", "Every key can be read, has its account, and is found by its digest.", restoreBackup, false, false, inFile(checkKeys)},
		{"revocations", "Every revocation can be read, and is found by its revision.", restoreBackup, false, false, inFile(checkRevocations)},
		{"books", "In every book granted = spent + outstanding + stranded + returned, and granted - returned <= allowed + forgiven.",
			reportBug, false, true, checkBooks},
		{"settlements", "Every settlement can be read, and is forgotten when its time comes.", restoreBackup, false, true, checkSettled},
		{"journal", "Every credit, reset and release can be read, so that none counts twice.", restoreBackup, false, true, checkJournal},
	}
}

// dropEvery is how often pages are dropped from memory while a command checks a whole file, which would fill it otherwise.
const dropEvery = 100 * time.Millisecond

// checkWritten checks all parts of a file that a command has written, but for some.
func checkWritten(tx *bbolt.Tx, except ...string) error {
	done := make(chan struct{})
	var dropping sync.WaitGroup
	dropping.Go(func() {
		tick := time.NewTicker(dropEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				dropPages(tx)
			case <-done:
				return
			}
		}
	})
	defer dropping.Wait()
	defer close(done)
	for _, p := range parts() {
		if slices.Contains(except, p.name) {
			continue
		}
		if err := p.check(&snapshot{tx: tx}); err != nil {
			return err
		}
	}
	return nil
}

// Check checks the whole file in one transaction and returns an error that names the first fault: an unsound page, a record
// that cannot be read, a key without an account, an index that disagrees with its records, a book whose sums are wrong. It
// does not hold up reads or writes.
func (db *DB) Check(ctx context.Context) error {
	return db.viewAll(ctx, func(s *snapshot) error {
		defer dropPages(s.tx)
		for _, p := range parts() {
			if err := ctx.Err(); err != nil {
				return authz.Errorf(authz.KindUnavailable, "not checked to the end: %w", err)
			}
			if err := p.check(s); err != nil {
				return err
			}
		}
		return nil
	})
}

// Checks returns a check for each part of the file, in the order in which they have to run.
func (db *DB) Checks() []doctor.Check {
	out := checks(func(ctx context.Context, p part) error {
		return db.viewAll(ctx, func(s *snapshot) error {
			defer dropPages(s.tx)
			if p.name == partLog {
				return db.log.Check()
			}
			return p.check(s)
		})
	})
	for i := range out {
		if out[i].Name == partLog {
			out[i].Remedy = stopServer
		}
	}
	return out
}

// Checks is DB.Checks.
func (f *File) Checks() []doctor.Check {
	return checks(func(ctx context.Context, p part) error {
		return viewFile(ctx, f.bolt, func(tx *bbolt.Tx) error {
			s := &snapshot{tx: tx}
			if p.ledger {
				if err := f.readLog(s); err != nil {
					return err
				}
			}
			return p.check(s)
		})
	})
}

// ChecksOfUnreadable returns the checks of a file that Inspect refused with that error. The first one reports the error.
func ChecksOfUnreadable(err error) []doctor.Check {
	return checks(func(context.Context, part) error { return err })
}

func checks(run func(context.Context, part) error) []doctor.Check {
	var out []doctor.Check
	for _, p := range parts() {
		out = append(out, doctor.Check{
			Name: p.name, Claim: p.claim, Remedy: p.remedy, Guards: p.guards,
			Run: func(ctx context.Context) error { return run(ctx, p) },
		})
	}
	return out
}

// inFile makes the check of a part that is in the file alone.
func inFile(check func(*bbolt.Tx) error) func(*snapshot) error {
	return func(s *snapshot) error { return check(s.tx) }
}

// checkLog has nothing to do: the log was read when the snapshot was made. A running server read it when it started, and looks only
// whether it is still there.
func checkLog(*snapshot) error { return nil }

// eachRecord decodes every record of a bucket, calls check for it, and returns how many there are.
func eachRecord[T any](s *snapshot, bucket string, check func(key []byte, v *T) error) (int, error) {
	n := 0
	err := s.forEach(bucket, func(k, text []byte) error {
		n++
		v := new(T)
		if err := json.Unmarshal(text, v); err != nil {
			return damaged("record %q in %q: %w", k, bucket, err)
		}
		return check(k, v)
	})
	return n, err
}

// sameSize checks that an index has as many entries as there are records. If every record has an entry, none is left that points
// nowhere.
func sameSize(s *snapshot, index string, records int) error {
	n := 0
	if err := s.forEach(index, func(_, _ []byte) error { n++; return nil }); err != nil {
		return err
	}
	if n != records {
		return damaged("%q has %d entries for %d records", index, n, records)
	}
	return nil
}

func checkAccounts(tx *bbolt.Tx) error {
	return tx.Bucket([]byte(bucketAccounts)).ForEach(func(id, sealed []byte) error {
		a, err := decodeAccount(id, sealed)
		if err != nil {
			return damaged("account %q: %w", id, err)
		}
		if a.Version == 0 {
			return damaged("account %q has version 0", id)
		}
		return nil
	})
}

func checkKeys(tx *bbolt.Tx) error {
	keys, accounts, listed := tx.Bucket([]byte(bucketKeys)), tx.Bucket([]byte(bucketAccounts)), tx.Bucket([]byte(bucketAccountKeys))
	n := 0
	err := tx.Bucket([]byte(bucketDigests)).ForEach(func(digest, sealed []byte) error {
		n++
		k, err := decodeKey(digest, sealed)
		switch {
		case err != nil:
			return damaged("the key with digest %x: %w", digest, err)
		case k.Version == 0:
			return damaged("key %q has version 0", k.ID)
		case accounts.Get([]byte(k.Account)) == nil:
			return damaged("key %q belongs to account %q, which is not there", k.ID, k.Account)
		case !bytes.Equal(keys.Get([]byte(k.ID)), digest):
			return damaged("key %q is not found by its id", k.ID)
		case listed.Get(joinKey(k.Account, k.ID)) == nil:
			return damaged("key %q is not listed among those of account %q", k.ID, k.Account)
		case k.Successor != "" && keys.Get([]byte(k.Successor)) == nil:
			return damaged("key %q was replaced by %q, which is not there", k.ID, k.Successor)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := sameSize(&snapshot{tx: tx}, bucketKeys, n); err != nil {
		return err
	}
	return sameSize(&snapshot{tx: tx}, bucketAccountKeys, n)
}

func checkRevocations(tx *bbolt.Tx) error {
	revisions := tx.Bucket([]byte(bucketRevisions))
	expiries, expire := tx.Bucket([]byte(bucketExpiries)), 0
	indexed := expiriesIndexed(tx) // if not, an older version wrote the file last
	n, err := eachRecord(&snapshot{tx: tx}, bucketRevoked, func(key []byte, r *revocation.Record) error {
		if string(revokedKey(r.Kind, r.Issuer, r.Value)) != string(key) {
			return damaged("the revocation of %s %q stands in the place of another", r.Kind, r.Value)
		}
		if string(revisions.Get(numberKey(r.Revision))) != string(key) || r.Revision > revisions.Sequence() {
			return damaged("the revocation of %s %q is not found by its revision %d", r.Kind, r.Value, r.Revision)
		}
		if r.ExpiresAt.IsZero() {
			return nil
		}
		expire++
		if indexed && expiries.Get(expiry(r.ExpiresAt, key)) == nil {
			return damaged("the revocation of %s %q is not found by the instant at which it expires", r.Kind, r.Value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := sameSize(&snapshot{tx: tx}, bucketRevisions, n); err != nil || !indexed {
		return err
	}
	return sameSize(&snapshot{tx: tx}, bucketExpiries, expire)
}

func checkBooks(s *snapshot) error {
	err := s.forEach(bucketHolders, func(key, text []byte) error {
		h, err := holderOfKey(key)
		if err != nil {
			return err
		}
		r, err := decodeRecord(h, text)
		if err != nil {
			return authz.Errorf(authz.KindConflict, "%w", err)
		}
		if err := r.Check(); err != nil {
			return authz.Errorf(authz.KindConflict, "%s %q: %w", h.Per, h.Holder, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = eachRecord(s, bucketBooks, func(key []byte, b *quota.Book) error {
		if err := b.Check(); err != nil {
			return authz.Errorf(authz.KindConflict, "bucket %q: %w", key, err)
		}
		return nil
	})
	return err
}

func checkSettled(s *snapshot) error {
	n, err := eachRecord(s, bucketSettled, func(id []byte, r *settled) error {
		if s.get(bucketSettledAt, settledAt(r.At, string(id))) == nil {
			return damaged("settlement %q is not found by its instant", id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := sameSize(s, bucketSettledAt, n); err != nil {
		return err
	}
	return s.forEach(bucketSettledAt, func(k, _ []byte) error {
		if len(k) < binary.Size(uint64(0)) {
			return damaged("an entry in %q is cut short", bucketSettledAt)
		}
		return nil
	})
}

func checkJournal(s *snapshot) error {
	_, err := eachRecord(s, bucketJournal, func(id []byte, e *entry) error {
		if e.Verb != "credit" && e.Verb != "reset" && e.Verb != "release" {
			return damaged("id %q was used for %q", id, e.Verb)
		}
		return nil
	})
	return err
}
