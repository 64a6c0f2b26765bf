package postgres

import (
	"hash/maphash"
	"sync"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keycache"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

// keyChange is a row of keys or accounts as a transaction left it.
type keyChange struct {
	revision int64
	isKey    bool
	name     []byte // the digest of a key, the id of an account
	sealed   []byte
}

// heldKeys is what memory holds, and applies changes to it: those that this node made, as soon as they are committed, and all
// in the order of the feed. The two overlap, and two writers of this node may arrive in another order than their commits.
//
// So for each record it would have to know its revision. It knows the latest of all records with the same hash: an earlier
// change than that may be out of date, and then the record is forgotten, so that the next use reads it.
type heldKeys struct {
	cache *keycache.Cache
	seed  maphash.Seed

	mu     sync.Mutex
	latest [4096]int64
	next   *heldKeys // that is being loaded: it gets the changes of this node too
}

func newHeldKeys(source keycache.Source) *heldKeys {
	return &heldKeys{cache: keycache.New(source), seed: maphash.MakeSeed()}
}

// written applies changes that this node has made. Single ones are held, because they are likely to be used next.
func (h *heldKeys) written(changes []keyChange) {
	h.apply(changes, len(changes) < 4)
}

// apply applies changes. Unless hold, the records of keys that are not in use are not held.
func (h *heldKeys) apply(changes []keyChange, hold bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range changes {
		h.applyLocked(&changes[i], hold)
	}
	if h.next != nil {
		h.next.apply(changes, hold)
	}
}

func (h *heldKeys) applyLocked(c *keyChange, hold bool) {
	latest := &h.latest[maphash.Bytes(h.seed, c.name)%uint64(len(h.latest))]
	if c.revision == *latest && !hold {
		return // revisions are unique: it is the same change
	}
	record, err := keyrecord.Open(c.name, c.sealed)
	if c.revision < *latest || err != nil { // a damaged one is read again too, which says so
		h.forget(c)
		return
	}
	*latest = c.revision
	switch {
	case c.isKey && hold:
		h.cache.PutKey(apikey.Digest(c.name), record)
	case c.isKey:
		h.cache.ReplaceKey(apikey.Digest(c.name), record)
	case hold:
		h.cache.PutAccount(string(c.name), record)
	default:
		h.cache.ReplaceAccount(string(c.name), record)
	}
}

func (h *heldKeys) forget(c *keyChange) {
	if c.isKey {
		h.cache.AddDigest(apikey.Digest(c.name))
		h.cache.DropKey(apikey.Digest(c.name))
	} else {
		h.cache.DropAccount(string(c.name))
	}
}

// replaceWith has changes of this node applied to what is being loaded in its place too; nil ends that.
func (h *heldKeys) replaceWith(next *heldKeys) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next = next
}
