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

// cachedRecords is how many keys, and how many accounts, are held decoded: those in frequent use.
const cachedRecords = 50_000

// keyCache is what memory holds of keys and accounts: the digests of all keys, so that an unknown key is refused without a look
// at the file, and the records in use. To decode all records would make several million objects, which the garbage collector
// would visit again and again though few of them are ever used.
//
// Only the committer changes a record. A read of what is in memory takes no lock that a write holds for long.
type keyCache struct {
	digests    digestset.Set
	keys       *otter.Cache[apikey.Digest, *apikey.Key]
	accounts   *otter.Cache[string, *apikey.Account]
	generation atomic.Uint64 // rises before any record changes
}

func newKeyCache() *keyCache {
	return &keyCache{
		keys:     otter.Must(&otter.Options[apikey.Digest, *apikey.Key]{MaximumSize: cachedRecords}),
		accounts: otter.Must(&otter.Options[string, *apikey.Account]{MaximumSize: cachedRecords}),
	}
}

func (c *keyCache) putKey(k *apikey.Key) {
	c.generation.Add(1)
	c.digests.Add(k.Digest)
	c.keys.Set(k.Digest, k)
}

// putDigest adds a key that will be read from the file when it is first used.
func (c *keyCache) putDigest(d apikey.Digest) { c.digests.Add(d) }

func (c *keyCache) putAccount(a *apikey.Account) {
	c.generation.Add(1)
	c.accounts.Set(a.ID, a)
}

// readThrough finds a record in a cache, or reads it from the file and adds it to the cache. If anything was written since the
// read began, the record may have changed: it is returned, but not added, so that no later caller gets it.
func readThrough[K comparable, T any](c *keyCache, cache *otter.Cache[K, *T], key K, read func() (*T, error)) (*T, error) {
	if v, ok := cache.GetIfPresent(key); ok {
		return v, nil
	}
	before := c.generation.Load()
	v, err := read()
	if err != nil {
		return nil, err
	}
	kept, ok := cache.Compute(key, func(there *T, found bool) (*T, otter.ComputeOp) {
		if found || c.generation.Load() != before {
			return there, otter.CancelOp
		}
		return v, otter.WriteOp
	})
	if ok {
		return kept, nil // another request may have added it first: all share one
	}
	return v, nil
}

// loaded returns the cache, or why nothing can be read.
func (db *DB) loaded(ctx context.Context) (*keyCache, error) {
	if err := ctx.Err(); err != nil {
		return nil, authz.Errorf(authz.KindUnavailable, "not read: %w", err)
	}
	c := db.cache.Load()
	if c == nil {
		return nil, authz.Errorf(authz.KindUnavailable, "not read: the store is closed")
	}
	return c, nil
}

// readRecord reads one record from the file. If there is none, the error is missing, which is given the id.
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

// reload replaces the cache by a new one with the digests of all keys in the file.
func (db *DB) reload() error {
	c := newKeyCache()
	err := db.view(context.Background(), func(tx *bbolt.Tx) error {
		defer dropPages(tx)
		digests, keys := 0, 0
		err := tx.Bucket([]byte(bucketDigests)).ForEach(func(digest, id []byte) error {
			if len(digest) != len(apikey.Digest{}) {
				return damaged("a digest of %d bytes leads to key %q", len(digest), id)
			}
			c.digests.Add(apikey.Digest(digest))
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
		db.cache.Store(c)
	}
	return err
}
