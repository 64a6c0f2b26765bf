package bolt

import (
	"context"
	"encoding/binary"
	"hash/maphash"
	"os"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/digestset"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/recordcache"
)

const (
	// cachedKeys and cachedAccounts are how many bytes of records are held: those of about 300,000 callers.
	cachedKeys     = 48 << 20
	cachedAccounts = 16 << 20
	// decodedRecords is how many keys, and how many accounts, are held decoded: those in frequent use.
	decodedRecords = 8192
	// versions is how many counters the changes of records are spread over.
	versions = 256
)

// keyCache is what memory holds of keys and accounts: the digests of all keys, so that an unknown key is refused without a look
// at the file, the records in use, and those in frequent use decoded. To decode all in use would make millions of objects, which
// the garbage collector would visit again and again.
//
// Only the committer changes a record. A read of what is in memory takes no lock that a write holds for long.
type keyCache struct {
	digests  digestset.Set
	keys     *recordcache.Cache // of keyrecord, opened
	accounts *recordcache.Cache // as keys; an empty record says that there is no such account
	seed     maphash.Seed
	trees    treeCache

	decodedKeys     [decodedRecords]atomic.Pointer[decoded[apikey.Digest, apikey.Key]]
	decodedAccounts [decodedRecords]atomic.Pointer[decoded[string, apikey.Account]]

	// A read that goes from the file to the records, or from the records to what is decoded, must not overtake a write. So a
	// write raises generation, then changes the records, then raises the version of what it changed. Records that were read
	// from the file before generation rose are not kept, and what was decoded before its version rose is not used.
	generation atomic.Uint64
	versions   [versions]atomic.Uint64 // by hash
}

// decoded is a decoded record. Without a value there is none with that key.
type decoded[K comparable, T any] struct {
	key     K
	version uint64 // of the record
	found   bool
	value   T
}

func newKeyCache(file *os.File, pageSize int) *keyCache {
	return &keyCache{
		keys: recordcache.New(cachedKeys), accounts: recordcache.New(cachedAccounts), seed: maphash.MakeSeed(),
		trees: treeCache{file: file, pageSize: pageSize},
	}
}

// hashOfKey takes other bytes of the digest than digestset.
func hashOfKey(d *apikey.Digest) uint64 { return binary.LittleEndian.Uint64(d[8:]) }

func (c *keyCache) hashOfAccount(id string) uint64 { return maphash.String(c.seed, id) }

func (c *keyCache) putKey(d apikey.Digest, record []byte) {
	hash := hashOfKey(&d)
	c.digests.Add(d)
	c.put(c.keys, hash, d[:], record)
}

// putDigest adds a key that will be read from the file when it is first used.
func (c *keyCache) putDigest(d apikey.Digest) { c.digests.Add(d) }

func (c *keyCache) putAccount(id string, record []byte) {
	c.put(c.accounts, c.hashOfAccount(id), []byte(id), record)
}

func (c *keyCache) put(records *recordcache.Cache, hash uint64, key, record []byte) {
	c.generation.Add(1)
	records.Put(hash, key, record, nil)
	c.versions[hash%versions].Add(1)
}

// keep adds a record that was read from the file, unless anything was written since the read began, before which the caller has
// loaded the generation: the record may have changed.
func (c *keyCache) keep(records *recordcache.Cache, hash uint64, key, record []byte, before uint64) {
	records.Put(hash, key, record, func() bool { return c.generation.Load() == before })
}

// key returns the key with that digest.
func (c *keyCache) key(ctx context.Context, db *DB, d apikey.Digest) (*apikey.Key, error) {
	hash := hashOfKey(&d)
	version := c.versions[hash%versions].Load()
	slot := &c.decodedKeys[hash%decodedRecords]
	if v := slot.Load(); v != nil && v.version == version && v.key == d {
		return &v.value, nil
	}
	v := &decoded[apikey.Digest, apikey.Key]{key: d, version: version, found: true}
	record, ok := c.keys.Get(hash, d[:])
	var err error
	switch {
	case ok:
		err = keyrecord.Key(&v.value, d, record)
	case c.digests.MayHave(d):
		err = c.readKey(ctx, db, &v.value, d)
	default:
		err = noKeyWith(d)
	}
	if err != nil {
		return nil, err
	}
	slot.Store(v)
	return &v.value, nil
}

// account returns the account with that id.
func (c *keyCache) account(ctx context.Context, db *DB, id string) (*apikey.Account, error) {
	hash := c.hashOfAccount(id)
	version := c.versions[hash%versions].Load()
	slot := &c.decodedAccounts[hash%decodedRecords]
	v := slot.Load()
	if v == nil || v.version != version || v.key != id {
		record, ok := c.accounts.Get(hash, []byte(id))
		if !ok {
			var err error
			if record, err = c.readAccount(ctx, db, id); err != nil {
				return nil, err
			}
		}
		v = &decoded[string, apikey.Account]{key: id, version: version, found: record != ""}
		if v.found {
			if err := keyrecord.Account(&v.value, id, record); err != nil {
				return nil, err
			}
		}
		slot.Store(v)
	}
	if !v.found {
		return nil, authz.Errorf(authz.KindNotFound, "no account %q", id)
	}
	return &v.value, nil
}

func noKeyWith(d apikey.Digest) error {
	return authz.Errorf(authz.KindNotFound, "no key has digest %x", d)
}

// readKey reads a key from the file, and the record of its account, which is asked for next.
func (c *keyCache) readKey(ctx context.Context, db *DB, k *apikey.Key, d apikey.Digest) error {
	before := c.generation.Load()
	return db.view(ctx, func(tx *bbolt.Tx) error {
		trees := c.trees.of(tx)
		ok, err := trees.get(tx, treeDigests, d[:], func(sealed []byte) error {
			record, err := keyrecord.Open(d[:], sealed)
			if err != nil {
				return err
			}
			c.keep(c.keys, hashOfKey(&d), d[:], record, before)
			return keyrecord.Key(k, d, string(record))
		})
		if err != nil {
			return err
		}
		if !ok {
			return noKeyWith(d)
		}
		if !c.accounts.Has(c.hashOfAccount(k.Account), k.Account) {
			_, err = c.loadAccount(tx, trees, k.Account, before)
		}
		return err
	})
}

// readAccount reads the record of an account from the file. It is empty if there is none.
func (c *keyCache) readAccount(ctx context.Context, db *DB, id string) (record string, err error) {
	before := c.generation.Load()
	err = db.view(ctx, func(tx *bbolt.Tx) (err error) {
		record, err = c.loadAccount(tx, c.trees.of(tx), id, before)
		return err
	})
	return record, err
}

func (c *keyCache) loadAccount(tx *bbolt.Tx, trees *trees, id string, before uint64) (record string, err error) {
	ok, err := trees.get(tx, treeAccounts, []byte(id), func(sealed []byte) error {
		opened, err := keyrecord.Open([]byte(id), sealed)
		if err == nil {
			c.keep(c.accounts, c.hashOfAccount(id), []byte(id), opened, before)
			record = string(opened)
		}
		return err
	})
	if err == nil && !ok { // held too: the accounts of an issuer may have no record here
		c.keep(c.accounts, c.hashOfAccount(id), []byte(id), nil, before)
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
	c := newKeyCache(db.handle, db.bolt.Info().PageSize)
	err := db.view(context.Background(), func(tx *bbolt.Tx) error {
		defer dropPages(tx)
		digests, keys := 0, 0
		err := tx.Bucket([]byte(bucketDigests)).ForEach(func(digest, _ []byte) error {
			if len(digest) != len(apikey.Digest{}) {
				return damaged("a key is stored under a digest of %d bytes", len(digest))
			}
			c.digests.Add(apikey.Digest(digest))
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
	})
	if err == nil {
		db.cache.Store(c)
	}
	return err
}
