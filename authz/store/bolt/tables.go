package bolt

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// tables are the keys and accounts in memory. Only the committer writes to them, and reads take no lock.
type tables struct {
	digests  sync.Map // apikey.Digest -> *record[apikey.Key]
	keys     sync.Map // id -> *record[apikey.Key]
	accounts sync.Map // id -> *record[apikey.Account]
}

func (t *tables) putKey(k *apikey.Key) {
	r := &record[apikey.Key]{}
	r.value.Store(k)
	t.keys.Store(k.ID, r)
	t.digests.Store(k.Digest, r)
}

// putText puts a key in its place that is decoded later.
func (t *tables) putText(k *apikey.Key, text []byte) {
	r := &record[apikey.Key]{text: text}
	t.keys.Store(k.ID, r)
	t.digests.Store(k.Digest, r)
}

func (t *tables) putAccount(a *apikey.Account) {
	r := &record[apikey.Account]{}
	r.value.Store(a)
	t.accounts.Store(a.ID, r)
}

// record is one record in memory. It is decoded when somebody first asks for it: decoding is most of the work of
// opening a large file, and few of its keys are used in the first minute.
type record[T any] struct {
	text  []byte // as it stands in the file
	value atomic.Pointer[T]
}

func (r *record[T]) get() (*T, error) {
	if v := r.value.Load(); v != nil {
		return v, nil
	}
	v, err := decode[T](r.text)
	if err != nil {
		return nil, err
	}
	r.value.CompareAndSwap(nil, v) // of several who decode at once, one wins, so that all share what it made
	return r.value.Load(), nil
}

// lookUp finds something in one of the tables.
func lookUp[T any](ctx context.Context, db *DB, table func(*tables) *sync.Map, key any, missing string) (*T, error) {
	if err := ctx.Err(); err != nil {
		return nil, authz.Errorf(authz.KindUnavailable, "not read: %w", err)
	}
	t := db.tables.Load()
	if t == nil {
		return nil, authz.Errorf(authz.KindUnavailable, "not read: the store is closed")
	}
	r, ok := table(t).Load(key)
	if !ok {
		return nil, authz.Errorf(authz.KindNotFound, missing, key)
	}
	return r.(*record[T]).get()
}

// reload reads all keys and accounts into memory.
func (db *DB) reload() error {
	t := new(tables)
	err := db.view(context.Background(), func(tx *bbolt.Tx) error {
		readAll[apikey.Account](tx, bucketAccounts, &t.accounts)
		keys, digests := readAll[apikey.Key](tx, bucketKeys, &t.keys), 0
		err := tx.Bucket([]byte(bucketDigests)).ForEach(func(digest, id []byte) error {
			r, ok := t.keys.Load(string(id))
			if !ok || len(digest) != len(apikey.Digest{}) {
				return damaged("a digest leads to key %q, which is not there", id)
			}
			t.digests.Store(apikey.Digest(digest), r)
			digests++
			return nil
		})
		if err == nil && digests != keys {
			err = damaged("there are %d digests for %d keys", digests, keys)
		}
		return err
	})
	if err == nil {
		db.tables.Store(t)
	}
	return err
}

// readAll puts every record of a bucket into a table, and returns how many there are.
func readAll[T any](tx *bbolt.Tx, bucket string, table *sync.Map) (n int) {
	_ = tx.Bucket([]byte(bucket)).ForEach(func(id, text []byte) error {
		table.Store(string(id), &record[T]{text: bytes.Clone(text)}) // the file's memory is only ours to read for now
		n++
		return nil
	})
	return n
}
