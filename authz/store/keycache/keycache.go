package keycache

import (
	"context"
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/digestset"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/recordcache"
)

const (
	// cachedKeys and cachedAccounts are how many bytes of records are held: those of about 300,000 callers.
	cachedKeys     = 48 << 20
	cachedAccounts = 24 << 20
	// decodedRecords is how many keys, and how many accounts, are held decoded: those in frequent use.
	decodedRecords = 8192
	// versions is how many counters the changes of records are spread over.
	versions = 256
)

// Cache holds keys and accounts. Records in it are those of keyrecord, opened. Of an account, an empty record says that there is
// none.
//
// All methods may be called concurrently, except that the caller puts the changes of one record in the order in which they were
// made. A read of what is in memory takes no lock that a write holds for long.
type Cache struct {
	source   Source
	digests  digestset.Set
	keys     *recordcache.Cache
	accounts *recordcache.Cache
	seed     maphash.Seed

	decodedKeys     slots[apikey.Digest, apikey.Key]
	decodedAccounts slots[string, apikey.Account]

	// A read that goes from the store to the records, or from the records to what is decoded, must not overtake a write. So a
	// write raises generation, then changes the records, then raises the version of what it changed. Records that were read
	// from the store before generation rose are not kept, and what was decoded before its version rose is not used.
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

// slots hold what is decoded, each in the slot that its hash names.
type slots[K comparable, T any] struct {
	values [decodedRecords]atomic.Pointer[decoded[K, T]]
	hashes [decodedRecords]atomic.Uint32 // of the values: a rare caller passes by those of others, which are far away in memory
}

// find returns what is decoded of a record in that version, nil for nothing.
func (s *slots[K, T]) find(hash, version uint64, key K) *decoded[K, T] {
	i := hash % decodedRecords
	if s.hashes[i].Load() != uint32(hash>>32) {
		return nil
	}
	if v := s.values[i].Load(); v != nil && v.version == version && v.key == key {
		return v
	}
	return nil
}

func (s *slots[K, T]) put(hash uint64, v *decoded[K, T]) {
	i := hash % decodedRecords
	s.values[i].Store(v)
	s.hashes[i].Store(uint32(hash >> 32)) // that of another one, from a put at the same time, costs a value that is not found
}

// New makes an empty cache of what a source has.
func New(source Source) *Cache {
	return &Cache{
		source: source, keys: recordcache.New(cachedKeys), accounts: recordcache.New(cachedAccounts), seed: maphash.MakeSeed(),
	}
}

// hashOfKey takes other bytes of the digest than digestset.
func hashOfKey(d *apikey.Digest) uint64 { return binary.LittleEndian.Uint64(d[8:]) }

func (c *Cache) hashOfAccount(id string) uint64 { return maphash.String(c.seed, id) }

// PutKey sets the record of a key, which may be new.
func (c *Cache) PutKey(d apikey.Digest, record []byte) {
	c.digests.Add(d)
	c.put(c.keys, hashOfKey(&d), d[:], record)
}

// MayHave returns false if there is no key with that digest.
func (c *Cache) MayHave(d apikey.Digest) bool { return c.digests.MayHave(d) }

// AddDigest adds a key that will be read from the source when it is first used.
func (c *Cache) AddDigest(d apikey.Digest) { c.digests.Add(d) }

// PutAccount sets the record of an account.
func (c *Cache) PutAccount(id string, record []byte) {
	c.put(c.accounts, c.hashOfAccount(id), []byte(id), record)
}

// ReplaceKey sets the record of a key if one is held, and returns false if that key was not known before. The key may be new.
func (c *Cache) ReplaceKey(d apikey.Digest, record []byte) bool {
	known := c.digests.MayHave(d)
	c.digests.Add(d)
	if known { // else nobody has read it
		c.replace(c.keys, hashOfKey(&d), d[:], record)
	}
	return known
}

// ReplaceAccount sets the record of an account if one is held, even one that says there is none.
func (c *Cache) ReplaceAccount(id string, record []byte) {
	c.replace(c.accounts, c.hashOfAccount(id), []byte(id), record)
}

func (c *Cache) replace(records *recordcache.Cache, hash uint64, key, record []byte) {
	c.generation.Add(1) // also if none is held: somebody may be reading the record that it replaces
	if records.Has(hash, string(key)) {
		records.Put(hash, key, record, nil)
	}
	c.versions[hash%versions].Add(1)
}

// DropKey forgets the record of a key: the next use reads it from the source.
func (c *Cache) DropKey(d apikey.Digest) { c.put(c.keys, hashOfKey(&d), d[:], tooLong) }

// DropAccount forgets the record of an account.
func (c *Cache) DropAccount(id string) { c.put(c.accounts, c.hashOfAccount(id), []byte(id), tooLong) }

// tooLong is a record that is not held.
var tooLong = make([]byte, recordcache.MaxEntry+1)

func (c *Cache) put(records *recordcache.Cache, hash uint64, key, record []byte) {
	c.generation.Add(1)
	records.Put(hash, key, record, nil)
	c.versions[hash%versions].Add(1)
}

// Key returns the key with that digest, and an error of KindNotFound if there is none. Other errors are those of the source.
func (c *Cache) Key(ctx context.Context, d apikey.Digest) (*apikey.Key, error) {
	hash := hashOfKey(&d)
	version := c.versions[hash%versions].Load()
	if v := c.decodedKeys.find(hash, version, d); v != nil {
		return &v.value, nil
	}
	v := &decoded[apikey.Digest, apikey.Key]{key: d, version: version, found: true}
	record, ok := c.keys.Get(hash, d[:])
	var err error
	switch {
	case ok:
		err = keyrecord.Key(&v.value, d, record)
	case c.digests.MayHave(d):
		err = c.source.ReadKey(ctx, d, &v.value, c.begin())
	default:
		err = NoKey(d)
	}
	if err != nil {
		return nil, err
	}
	c.decodedKeys.put(hash, v)
	return &v.value, nil
}

// Account returns the account with that id, and an error of KindNotFound if there is none. Other errors are those of the source.
func (c *Cache) Account(ctx context.Context, id string) (*apikey.Account, error) {
	hash := c.hashOfAccount(id)
	version := c.versions[hash%versions].Load()
	v := c.decodedAccounts.find(hash, version, id)
	if v == nil {
		record, ok := c.accounts.Get(hash, []byte(id))
		if !ok {
			var err error
			if record, err = c.source.ReadAccount(ctx, id, c.begin()); err != nil {
				return nil, err
			}
		}
		v = &decoded[string, apikey.Account]{key: id, version: version, found: record != ""}
		if v.found {
			if err := keyrecord.Account(&v.value, id, record); err != nil {
				return nil, err
			}
		}
		c.decodedAccounts.put(hash, v)
	}
	if !v.found {
		return nil, authz.Errorf(authz.KindNotFound, "no account %q", id)
	}
	return &v.value, nil
}

// NoKey is the error for a digest that no key has.
func NoKey(d apikey.Digest) error {
	return authz.Errorf(authz.KindNotFound, "no key has digest %x", d)
}
