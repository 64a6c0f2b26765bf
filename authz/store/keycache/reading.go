package keycache

import (
	"context"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/recordcache"
)

// Source is the store behind a cache. What it reads must not be older than the call.
type Source interface {
	// ReadKey reads the key with that digest into k, and passes its record to r, with the record of its account unless r has it:
	// that is asked for next. The error is of KindNotFound if there is no such key.
	ReadKey(ctx context.Context, d apikey.Digest, k *apikey.Key, r Reading) error
	// ReadAccount reads the record of the account with that id, and passes it to r. It is empty if there is none.
	ReadAccount(ctx context.Context, id string, r Reading) (record string, err error)
}

// Reading takes the records that one call reads from the source. A record is not kept if anything was written since the call
// began: it may have changed.
type Reading struct {
	cache  *Cache
	before uint64 // the generation when it began
}

func (c *Cache) begin() Reading { return Reading{cache: c, before: c.generation.Load()} }

// Key takes the record of a key.
func (r Reading) Key(d apikey.Digest, record []byte) {
	r.keep(r.cache.keys, hashOfKey(&d), d[:], record)
}

// HasAccount reports whether the record of an account is held.
func (r Reading) HasAccount(id string) bool {
	return r.cache.accounts.Has(r.cache.hashOfAccount(id), id)
}

// Account takes the record of an account, which is empty if there is none: that is held too, because the accounts of an issuer may
// have no record here.
func (r Reading) Account(id string, record []byte) {
	r.keep(r.cache.accounts, r.cache.hashOfAccount(id), []byte(id), record)
}

func (r Reading) keep(records *recordcache.Cache, hash uint64, key, record []byte) {
	records.Put(hash, key, record, func() bool { return r.cache.generation.Load() == r.before })
}
