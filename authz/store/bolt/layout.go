package bolt

import (
	"crypto/rand"
	"encoding/binary"
	"errors"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt/wal"
)

// The buckets of the file. Values are JSON, unless they have a binary form or only point at another bucket.
const (
	bucketMeta        = "meta"         // "format", "pepper" -> text; "revocations_mark" -> revocation.Mark; metaLog..., metaRecords
	bucketAccounts    = "accounts"     // id -> keyrecord.Account
	bucketKeys        = "keys"         // id -> digest
	bucketDigests     = "digests"      // digest -> keyrecord.Key
	bucketAccountKeys = "account_keys" // joined account and id of the key -> nothing
	bucketRevoked     = "revoked"      // joined kind, issuer and value -> revocation.Record
	bucketRevisions   = "revisions"    // revision -> key in bucketRevoked
	bucketExpiries    = "expiries"     // instant, then key in bucketRevoked -> nothing
	bucketHolders     = "holders"      // joined quota.HolderID -> quota.Record in its binary form
	bucketBooks       = "books"        // of older versions: quota.Bucket.Key or LegacyKey -> quota.Book
	bucketJournal     = "journal"      // id of a credit, reset or release -> entry, for good
	bucketSettled     = "settled"      // id of a reservation -> settled
	bucketSettledAt   = "settled_at"   // instant, then id -> nothing
)

// format is the version of the layout that this package writes. It also reads oldFormat, which Open brings up to date for good: a
// binary that does not know the write-ahead log refuses the file, and cannot lose what is in the log.
const (
	format    = "tollkeeper 2"
	oldFormat = "tollkeeper 1"
)

// What bucketMeta has about the write-ahead log.
var (
	metaLogID      = []byte("log_id")      // wal.ID, made with the file
	metaLogApplied = []byte("log_applied") // the number of the last record that is in the file
	metaLogOpen    = []byte("log_open")    // there if the log may have records that are not in the file
)

// bucketCode stands for a bucket in the write-ahead log. Only the buckets of the ledger are written through the log, and only
// through the log.
type bucketCode byte

// The codes are stored in logs: none may change its meaning.
const (
	codeBooks bucketCode = iota + 1
	codeJournal
	codeSettled
	codeSettledAt
	codeHolders
	codesEnd
)

// logged are the buckets by code.
var logged = [codesEnd]string{codeBooks: bucketBooks, codeJournal: bucketJournal, codeSettled: bucketSettled, codeSettledAt: bucketSettledAt, codeHolders: bucketHolders}

func (c bucketCode) known() bool { return c > 0 && c < codesEnd }

// codeOf returns the code of a bucket, 0 if it is not one of the ledger's.
func codeOf(bucket string) bucketCode {
	switch bucket {
	case bucketBooks:
		return codeBooks
	case bucketJournal:
		return codeJournal
	case bucketSettled:
		return codeSettled
	case bucketSettledAt:
		return codeSettledAt
	case bucketHolders:
		return codeHolders
	}
	return 0
}

func bucketNames() []string {
	return []string{
		bucketMeta, bucketAccounts, bucketKeys, bucketDigests, bucketAccountKeys, bucketRevoked, bucketRevisions,
		bucketExpiries, bucketHolders, bucketBooks, bucketJournal, bucketSettled, bucketSettledAt,
	}
}

// ensureFormat refuses a file that is not ours, lays out a new one, and brings one of an older version up to date.
func ensureFormat(w *write, pepper string) error {
	meta := w.tx.Bucket([]byte(bucketMeta))
	if meta == nil {
		return layOut(w, pepper)
	}
	if err := checkFormat(w.tx); err != nil {
		return err
	}
	if err := checkPepper(meta, pepper); err != nil {
		return err
	}
	if string(meta.Get([]byte("format"))) == oldFormat {
		if _, err := w.tx.CreateBucketIfNotExists([]byte(bucketHolders)); err != nil {
			return authz.Errorf(authz.KindUnavailable, "cannot make bucket %q: %w", bucketHolders, err)
		}
		if err := putFormat(w); err != nil {
			return err
		}
	}
	return rebuildExpiries(w)
}

// putFormat makes the file one of this version.
func putFormat(w *write) error {
	id := make([]byte, len(wal.ID{}))
	_, _ = rand.Read(id) // never fails
	return errors.Join(
		w.put(bucketMeta, []byte("format"), []byte(format)),
		w.put(bucketMeta, metaLogID, id),
		w.put(bucketMeta, metaLogApplied, numberKey(0)),
	)
}

// layOut makes the buckets of a new file.
func layOut(w *write, pepper string) error {
	if first, _ := w.tx.Cursor().First(); first != nil {
		return authz.Errorf(authz.KindConflict, "this is not a tollkeeper data file")
	}
	w.wrote = true
	for _, name := range bucketNames() {
		if _, err := w.tx.CreateBucket([]byte(name)); err != nil {
			return authz.Errorf(authz.KindUnavailable, "cannot make bucket %q: %w", name, err)
		}
	}
	if err := putFormat(w); err != nil {
		return err
	}
	if err := w.put(bucketMeta, metaRecords, recordsDone); err != nil {
		return err
	}
	return w.put(bucketMeta, []byte("pepper"), []byte(pepper))
}

func checkPepper(meta *bbolt.Bucket, pepper string) error {
	if got := meta.Get([]byte("pepper")); string(got) != pepper {
		return authz.Errorf(authz.KindConflict, "the file was made with another pepper (fingerprint %q, configured %q): none of its keys would be found", got, pepper)
	}
	return nil
}

// checkFormat refuses a file that this version cannot read.
func checkFormat(tx *bbolt.Tx) error {
	meta := tx.Bucket([]byte(bucketMeta))
	if meta == nil {
		return authz.Errorf(authz.KindConflict, "this is not a tollkeeper data file")
	}
	got := string(meta.Get([]byte("format")))
	if got == formatFilling {
		return authz.Errorf(authz.KindConflict, "it is an unfinished copy of another store: run tollkeeper store copy again, which goes on with it")
	}
	if got != format && got != oldFormat {
		return authz.Errorf(authz.KindConflict, "the file has format %q and this version reads %q", got, format)
	}
	for _, name := range bucketNames() {
		if k, _ := tx.Cursor().Seek([]byte(name)); string(k) != name && (name == bucketExpiries || name == bucketHolders && got == oldFormat) {
			continue // older versions do not have it: Open makes it
		}
		if tx.Bucket([]byte(name)) == nil {
			return authz.Errorf(authz.KindConflict, "the file is damaged: bucket %q is gone", name)
		}
	}
	return nil
}

// joinKey makes one key of several parts. The length of each part but the last precedes it, so that no two lists of parts make
// the same key.
func joinKey(parts ...string) []byte {
	var out []byte
	for i, part := range parts {
		if i < len(parts)-1 {
			out = binary.AppendUvarint(out, uint64(len(part)))
		}
		out = append(out, part...)
	}
	return out
}

// splitKey is the two parts of which joinKey made a key.
func splitKey(key []byte) (first, second string, ok bool) {
	n, size := binary.Uvarint(key)
	if size <= 0 || n > uint64(len(key)-size) {
		return "", "", false
	}
	return string(key[size : size+int(n)]), string(key[size+int(n):]), true
}

// numberKey makes a key that sorts as the number does.
func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
