package bolt

import (
	"encoding/binary"
	"encoding/json"
	"errors"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// The buckets of the file. Values are JSON, except where they only point at another bucket.
const (
	bucketMeta        = "meta"         // "format", "pepper" -> text; "revocations_mark" -> revocation.Mark
	bucketAccounts    = "accounts"     // id -> apikey.Account
	bucketKeys        = "keys"         // id -> apikey.Key
	bucketDigests     = "digests"      // digest -> id of the key
	bucketAccountKeys = "account_keys" // joined account and id of the key -> nothing
	bucketRevoked     = "revoked"      // joined kind, issuer and value -> revocation.Record
	bucketRevisions   = "revisions"    // revision -> key in bucketRevoked
	bucketExpiries    = "expiries"     // instant, then key in bucketRevoked -> nothing
	bucketBooks       = "books"        // quota.Bucket.Key -> quota.Book
	bucketJournal     = "journal"      // id of a credit or reset -> entry, for good
	bucketSettled     = "settled"      // id of a reservation -> settled
	bucketSettledAt   = "settled_at"   // instant, then id -> nothing
)

// format is what this version writes and reads.
const format = "tollkeeper 1"

func bucketNames() []string {
	return []string{
		bucketMeta, bucketAccounts, bucketKeys, bucketDigests, bucketAccountKeys, bucketRevoked, bucketRevisions,
		bucketExpiries, bucketBooks, bucketJournal, bucketSettled, bucketSettledAt,
	}
}

// ensureFormat refuses a file that is not ours, makes a new one ours, and brings one of an older version up to date.
func ensureFormat(w *write, pepper string) error {
	meta := w.tx.Bucket([]byte(bucketMeta))
	if meta == nil {
		if first, _ := w.tx.Cursor().First(); first != nil {
			return authz.Errorf(authz.KindConflict, "this is not a tollkeeper data file")
		}
		w.wrote = true
		for _, name := range bucketNames() {
			if _, err := w.tx.CreateBucket([]byte(name)); err != nil {
				return authz.Errorf(authz.KindUnavailable, "cannot make bucket %q: %w", name, err)
			}
		}
		if err := w.put(bucketMeta, []byte("format"), []byte(format)); err != nil {
			return err
		}
		return w.put(bucketMeta, []byte("pepper"), []byte(pepper))
	}
	if err := checkFormat(w.tx); err != nil {
		return err
	}
	if err := checkPepper(meta, pepper); err != nil {
		return err
	}
	return rebuildExpiries(w)
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
	if got := meta.Get([]byte("format")); string(got) != format {
		return authz.Errorf(authz.KindConflict, "the file has format %q and this version reads %q", got, format)
	}
	for _, name := range bucketNames() {
		if k, _ := tx.Cursor().Seek([]byte(name)); name == bucketExpiries && string(k) != name {
			continue // older versions do not have it: it is made when the file is opened
		}
		if tx.Bucket([]byte(name)) == nil {
			return authz.Errorf(authz.KindConflict, "the file is damaged: bucket %q is gone", name)
		}
	}
	return nil
}

// write is what an operation sees of the transaction that it takes part in.
type write struct {
	tx    *bbolt.Tx
	books txBooks  // of the whole transaction
	wrote bool     // the transaction has something of this operation in it
	after []func() // run once the transaction is durable
}

// then has a function run once the write is durable and before it is acknowledged. It must not fail.
func (w *write) afterCommit(fn func()) { w.after = append(w.after, fn) }

// get returns a value that is good until the next put, nil if there is none.
func (w *write) get(bucket string, key []byte) []byte { return w.tx.Bucket([]byte(bucket)).Get(key) }

func (w *write) put(bucket string, key, value []byte) error {
	w.wrote = true
	err := w.tx.Bucket([]byte(bucket)).Put(key, value)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrKeyRequired), errors.Is(err, bolterrors.ErrKeyTooLarge), errors.Is(err, bolterrors.ErrValueTooLarge):
		return authz.Errorf(authz.KindInvalid, "cannot be stored in %q: %w", bucket, err)
	default:
		return authz.Errorf(authz.KindUnavailable, "writing to %q: %w", bucket, err)
	}
}

func (w *write) delete(bucket string, key []byte) error {
	w.wrote = true
	if err := w.tx.Bucket([]byte(bucket)).Delete(key); err != nil {
		return authz.Errorf(authz.KindUnavailable, "deleting from %q: %w", bucket, err)
	}
	return nil
}

// keep writes a value as JSON and returns what will be read back, so that nothing that is held in memory changes when
// the process starts again: a number in Meta, say, is a float64 from the beginning.
func putJSON[T any](w *write, bucket string, key []byte, v *T) (*T, error) {
	text, err := encode(v)
	if err != nil {
		return nil, err
	}
	if err := w.put(bucket, key, text); err != nil {
		return nil, err
	}
	return decode[T](text)
}

func encode(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, authz.Errorf(authz.KindInvalid, "cannot be written as JSON: %w", err)
	}
	return text, nil
}

// decode reads a record, nil if there is none.
func decode[T any](text []byte) (*T, error) {
	if text == nil {
		return nil, nil
	}
	v := new(T)
	if err := json.Unmarshal(text, v); err != nil {
		return nil, authz.Errorf(authz.KindUnavailable, "a record in the data file is damaged: %w", err)
	}
	return v, nil
}

// join makes one key of several parts. Each but the last is preceded by its length, so that no two lists of parts make
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

// number is a key that sorts as numbers do.
func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
