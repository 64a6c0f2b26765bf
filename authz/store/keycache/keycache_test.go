package keycache

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

// table is a source in memory.
type table struct {
	mu       sync.Mutex
	keys     map[apikey.Digest][]byte // records as they are stored
	accounts map[string][]byte
	reads    atomic.Int64
	late     func() // runs between a read and its end
}

func newTable() *table {
	return &table{keys: make(map[apikey.Digest][]byte), accounts: make(map[string][]byte), late: func() {}}
}

func (t *table) ReadKey(_ context.Context, d apikey.Digest, k *apikey.Key, r Reading) error {
	t.reads.Add(1)
	t.mu.Lock()
	record := t.keys[d]
	t.mu.Unlock()
	t.late()
	if record == nil {
		return NoKey(d)
	}
	r.Key(d, record)
	return keyrecord.Key(k, d, string(record))
}

func (t *table) ReadAccount(_ context.Context, id string, r Reading) (string, error) {
	t.reads.Add(1)
	t.mu.Lock()
	record := t.accounts[id]
	t.mu.Unlock()
	t.late()
	r.Account(id, record)
	return string(record), nil
}

func (t *table) setKey(c *Cache, k *apikey.Key) {
	record := opened(k.Digest[:], keyrecord.AppendKey(nil, k))
	t.mu.Lock()
	t.keys[k.Digest] = record
	t.mu.Unlock()
	c.PutKey(k.Digest, record)
}

func (t *table) setAccount(c *Cache, a *apikey.Account) {
	record := opened([]byte(a.ID), keyrecord.AppendAccount(nil, a))
	t.mu.Lock()
	t.accounts[a.ID] = record
	t.mu.Unlock()
	c.PutAccount(a.ID, record)
}

func opened(key, sealed []byte) []byte {
	record, err := keyrecord.Open(key, sealed)
	if err != nil {
		panic(err)
	}
	return record
}

func keyAt(version uint64) *apikey.Key {
	return &apikey.Key{ID: "k", Account: "acme", Lineage: "k", Version: version, Digest: apikey.Hasher{}.Text("k")}
}

// forgets make the cache forget a key and its account, as if they had not been used for a while. They do not raise the generation, as
// DropKey does.
var forgets = map[string]func(c *Cache, k *apikey.Key){
	"all is held": func(*Cache, *apikey.Key) {},
	"records are held": func(c *Cache, k *apikey.Key) {
		c.decodedKeys.put(hashOfKey(&k.Digest), nil)
		c.decodedAccounts.put(c.hashOfAccount(k.Account), nil)
	},
	"nothing is held": func(c *Cache, k *apikey.Key) {
		c.keys.Put(hashOfKey(&k.Digest), k.Digest[:], tooLong, nil)
		c.accounts.Put(c.hashOfAccount(k.Account), []byte(k.Account), tooLong, nil)
		c.decodedKeys.put(hashOfKey(&k.Digest), nil)
		c.decodedAccounts.put(c.hashOfAccount(k.Account), nil)
	},
}

// TestCache_ReadsKeepUpWithWrites changes a key and its account again and again while they are read: a read after a change never
// gets the state before it, wherever it gets it from.
func TestCache_ReadsKeepUpWithWrites(t *testing.T) {
	for name, forget := range forgets {
		t.Run(name, func(t *testing.T) {
			source := newTable()
			c, ctx, k := New(source), t.Context(), keyAt(1)
			source.setKey(c, k)
			source.setAccount(c, &apikey.Account{ID: "acme", Version: 1})
			var version atomic.Uint64 // of key and account, put
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						least := version.Load()
						forget(c, k)
						if got, err := c.Key(ctx, k.Digest); err != nil || got.Version < least {
							t.Errorf("read key %+v after version %d was put (%v)", got, least, err)
							return
						}
						if got, err := c.Account(ctx, "acme"); err != nil || got.Version < least {
							t.Errorf("read account %+v after version %d was put (%v)", got, least, err)
							return
						}
					}
				})
			}
			for v := uint64(2); v < 20_000; v++ {
				source.setKey(c, keyAt(v))
				source.setAccount(c, &apikey.Account{ID: "acme", Version: v})
				version.Store(v)
			}
			close(stop)
			wg.Wait()
		})
	}
}

// TestCache_LateRead has reads of the source end after writes that they did not see: what they read is not kept.
func TestCache_LateRead(t *testing.T) {
	source := newTable()
	c, k := New(source), keyAt(1)
	source.setKey(c, k)
	source.setAccount(c, &apikey.Account{ID: "acme", Version: 1})
	c.DropKey(k.Digest)
	c.DropAccount("acme")
	source.late = func() { source.setKey(c, keyAt(2)) }
	if got, err := c.Key(t.Context(), k.Digest); err != nil || got.Version != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	source.late = func() { source.setAccount(c, &apikey.Account{ID: "acme", Version: 2}) }
	if got, err := c.Account(t.Context(), "acme"); err != nil || got.Version != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := c.Key(t.Context(), k.Digest); err != nil || got.Version != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := c.Account(t.Context(), "acme"); err != nil || got.Version != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestCache_UnknownKeys asks for keys that were never put, of which the source is not asked.
func TestCache_UnknownKeys(t *testing.T) {
	source := newTable()
	c := New(source)
	source.setKey(c, keyAt(1))
	for _, text := range []string{"", "a", "b"} {
		if _, err := c.Key(t.Context(), apikey.Hasher{}.Text(text)); authz.KindOf(err) != authz.KindNotFound {
			t.Errorf("%q: %v", text, err)
		}
	}
	for range 2 { // an account that is not there is held too
		if _, err := c.Account(t.Context(), "nobody"); authz.KindOf(err) != authz.KindNotFound {
			t.Error(err)
		}
	}
	if n := source.reads.Load(); n != 1 {
		t.Errorf("%d reads", n)
	}
}

// TestSlots_OfOthers has two keys whose records share a slot: the one that came last is found, and the other passed by.
func TestSlots_OfOthers(t *testing.T) {
	const hash, other = 7, 7 + 3<<32
	var s slots[string, int]
	first, second := &decoded[string, int]{key: "a", version: 1}, &decoded[string, int]{key: "b", version: 1}
	s.put(hash, first)
	if got := s.find(hash, 1, "a"); got != first || s.find(hash, 2, "a") != nil || s.find(hash, 1, "b") != nil || s.find(other, 1, "b") != nil {
		t.Errorf("found %v", got)
	}
	s.put(other, second)
	if got := s.find(other, 1, "b"); got != second || s.find(hash, 1, "a") != nil {
		t.Errorf("found %v", got)
	}
}
