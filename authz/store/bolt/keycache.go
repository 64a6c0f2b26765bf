package bolt

import (
	"context"
	"os"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keycache"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

// keyCache is what memory holds of keys and accounts. Only the committer changes a record.
type keyCache struct {
	*keycache.Cache
	file *keyFile
}

// keyFile reads for a cache what it does not hold.
type keyFile struct {
	db    *DB
	trees treeCache
}

func newKeyCache(db *DB, file *os.File, pageSize int) *keyCache {
	f := &keyFile{db: db, trees: treeCache{file: file, pageSize: pageSize}}
	return &keyCache{Cache: keycache.New(f), file: f}
}

// ReadKey is keycache.Source.ReadKey.
func (f *keyFile) ReadKey(ctx context.Context, d apikey.Digest, k *apikey.Key, r keycache.Reading) error {
	return f.db.view(ctx, func(tx *bbolt.Tx) error {
		trees := f.trees.of(tx)
		ok, err := trees.get(tx, treeDigests, d[:], func(sealed []byte) error {
			record, err := keyrecord.Open(d[:], sealed)
			if err != nil {
				return err
			}
			r.Key(d, record)
			return keyrecord.Key(k, d, string(record))
		})
		if err != nil {
			return err
		}
		if !ok {
			return keycache.NoKey(d)
		}
		if !r.HasAccount(k.Account) {
			_, err = loadAccount(tx, trees, k.Account, r)
		}
		return err
	})
}

// ReadAccount is keycache.Source.ReadAccount.
func (f *keyFile) ReadAccount(ctx context.Context, id string, r keycache.Reading) (record string, err error) {
	err = f.db.view(ctx, func(tx *bbolt.Tx) (err error) {
		record, err = loadAccount(tx, f.trees.of(tx), id, r)
		return err
	})
	return record, err
}

func loadAccount(tx *bbolt.Tx, trees *trees, id string, r keycache.Reading) (record string, err error) {
	ok, err := trees.get(tx, treeAccounts, []byte(id), func(sealed []byte) error {
		opened, err := keyrecord.Open([]byte(id), sealed)
		if err == nil {
			r.Account(id, opened)
			record = string(opened)
		}
		return err
	})
	if err == nil && !ok {
		r.Account(id, nil)
	}
	return record, err
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

// digestsPerDrop is how many digests are read before the pages with them are dropped from memory.
const digestsPerDrop = 100_000

// reload replaces the cache by a new one with the digests of all keys in the file.
func (db *DB) reload() error {
	c := newKeyCache(db, db.handle, db.bolt.Info().PageSize)
	err := db.view(context.Background(), func(tx *bbolt.Tx) error {
		defer dropPages(tx)
		return eachDigest(tx, c.AddDigest)
	})
	if err == nil {
		db.cache.Store(c)
	}
	return err
}

// eachDigest calls a function for the digest of every key. It returns an error if one is no digest, or there are more or fewer than
// keys.
func eachDigest(tx *bbolt.Tx, do func(apikey.Digest)) error {
	digests, keys := 0, 0
	err := tx.Bucket([]byte(bucketDigests)).ForEach(func(digest, _ []byte) error {
		if len(digest) != len(apikey.Digest{}) {
			return damaged("a key is stored under a digest of %d bytes", len(digest))
		}
		do(apikey.Digest(digest))
		if digests++; digests%digestsPerDrop == 0 {
			dropPages(tx)
		}
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
}
