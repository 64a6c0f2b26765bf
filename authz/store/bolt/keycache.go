package bolt

import (
	"context"
	"sync/atomic"

	"github.com/maypok86/otter/v2"
	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt/digestset"
)

// cachedRecords is how many keys, and how many accounts, are held decoded: those that are asked for again and again.
const cachedRecords = 50_000

// tables are what is held in memory of keys and accounts: the digests of all keys, so that a key that nobody has is refused
// without a look at the file, and the records that are in use. A million records would otherwise be several million
// objects, which the garbage collector would go through time and again, though few of them are ever asked for.
//
// Only the committer changes what is there already. Reads of what is in memory take no lock that a write holds for long.
type keyCache struct {
	digests    digestset.Set
	keys       *otter.Cache[apikey.Digest, *apikey.Key]
	accounts   *otter.Cache[string, *apikey.Account]
	generation atomic.Uint64 // rises before any record becomes another one
}

func newKeyCache() *keyCache {
	return &keyCache{
		keys:     otter.Must(&otter.Options[apikey.Digest, *apikey.Key]{MaximumSize: cachedRecords}),
		accounts: otter.Must(&otter.Options[string, *apikey.Account]{MaximumSize: cachedRecords}),
	}
}

func (t *keyCache) putKey(k *apikey.Key) {
	t.generation.Add(1)
	t.digests.Add(k.Digest)
	t.keys.Set(k.Digest, k)
}

// putDigest notes a key that is read from the file when somebody asks for it.
func (t *keyCache) putDigest(d apikey.Digest) { t.digests.Add(d) }

func (t *keyCache) putAccount(a *apikey.Account) {
	t.generation.Add(1)
	t.accounts.Set(a.ID, a)
}

// hot finds a record in a cache, or reads it from the file and keeps it there. What is read while something is written may
// be what it was before, and is not kept: nobody who comes later gets it.
func readThrough[K comparable, T any](t *keyCache, cache *otter.Cache[K, *T], key K, read func() (*T, error)) (*T, error) {
	if v, ok := cache.GetIfPresent(key); ok {
		return v, nil
	}
	before := t.generation.Load()
	v, err := read()
	if err != nil {
		return nil, err
	}
	kept, ok := cache.Compute(key, func(there *T, found bool) (*T, otter.ComputeOp) {
		if found || t.generation.Load() != before {
			return there, otter.CancelOp
		}
		return v, otter.WriteOp
	})
	if ok {
		return kept, nil // perhaps another's, so that all share one
	}
	return v, nil
}

// open returns the tables, or why nothing can be read.
func (db *DB) loaded(ctx context.Context) (*keyCache, error) {
	if err := ctx.Err(); err != nil {
		return nil, authz.Errorf(authz.KindUnavailable, "not read: %w", err)
	}
	t := db.cache.Load()
	if t == nil {
		return nil, authz.Errorf(authz.KindUnavailable, "not read: the store is closed")
	}
	return t, nil
}

// record reads one record from the file. It is an error if there is none.
func readRecord[T any](ctx context.Context, db *DB, bucket, id, missing string) (*T, error) {
	var v *T
	err := db.view(ctx, func(tx *bbolt.Tx) (err error) {
		v, err = decode[T](tx.Bucket([]byte(bucket)).Get([]byte(id)))
		return err
	})
	if err == nil && v == nil {
		err = authz.Errorf(authz.KindNotFound, missing, id)
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// readKeyByDigest reads a key from the file.
func readKeyByDigest(ctx context.Context, db *DB, d apikey.Digest) (*apikey.Key, error) {
	var k *apikey.Key
	err := db.view(ctx, func(tx *bbolt.Tx) (err error) {
		id := tx.Bucket([]byte(bucketDigests)).Get(d[:])
		if id == nil {
			return authz.Errorf(authz.KindNotFound, "no key has digest %x", d)
		}
		if k, err = decode[apikey.Key](tx.Bucket([]byte(bucketKeys)).Get(id)); err == nil && k == nil {
			err = damaged("a digest leads to key %q, which is not there", id)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// reload reads the digests of all keys into memory.
func (db *DB) reload() error {
	t := newKeyCache()
	err := db.view(context.Background(), func(tx *bbolt.Tx) error {
		defer dropPages(tx)
		digests, keys := 0, 0
		err := tx.Bucket([]byte(bucketDigests)).ForEach(func(digest, id []byte) error {
			if len(digest) != len(apikey.Digest{}) {
				return damaged("a digest of %d bytes leads to key %q", len(digest), id)
			}
			t.digests.Add(apikey.Digest(digest))
			digests++
			return nil
		})
		if err != nil {
			return err
		}
		_ = tx.Bucket([]byte(bucketKeys)).ForEach(func([]byte, []byte) error {
			keys++
			return nil
		})
		if digests != keys {
			return damaged("there are %d digests for %d keys", digests, keys)
		}
		return nil
	})
	if err == nil {
		db.cache.Store(t)
	}
	return err
}
