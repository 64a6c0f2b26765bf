package bolt

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// forget makes the cache forget a key and its account, as if they had not been used for a while.
func forget(c *keyCache, k *apikey.Key) {
	c.DropKey(k.Digest)
	c.DropAccount(k.Account)
}

// TestKeyCache_ReadsWhileTheFileChanges reads keys from the file while others are imported, so that pages are split, freed and used
// again.
func TestKeyCache_ReadsWhileTheFileChanges(t *testing.T) {
	db := openFresh(t, Options{})
	keys, ctx := db.Keys(), t.Context()
	key := func(i int) apikey.Key {
		return apikey.Key{ID: fmt.Sprint("key_", i), Account: fmt.Sprint("account-", i), Digest: apikey.Hasher{}.Text(fmt.Sprint(i))}
	}
	var there atomic.Int64 // keys that are acknowledged
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
				n := there.Load()
				if n == 0 {
					continue
				}
				want := key(rand.IntN(int(n)))
				forget(db.cache.Load(), &want)
				got, err := keys.Find(ctx, want.Digest)
				if err != nil || got.ID != want.ID {
					t.Errorf("%s: %+v, %v", want.ID, got, err)
					return
				}
				if a, err := keys.Account(ctx, want.Account); err != nil || a.ID != want.Account {
					t.Errorf("%s: %+v, %v", want.Account, a, err)
					return
				}
			}
		})
	}
	for round := range 40 {
		batch := make([]apikey.Key, 40)
		for i := range batch {
			batch[i] = key(int(there.Load()) + i)
		}
		if _, err := keys.Import(ctx, batch); err != nil {
			t.Fatal(err)
		}
		there.Add(int64(len(batch)))
		for range 5 { // which leave pages free
			id := fmt.Sprint("key_", rand.IntN(int(there.Load())))
			if _, err := keys.AmendKey(ctx, id, apikey.KeyChange{Name: new(fmt.Sprint(round))}); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	wg.Wait()
	if db.cache.Load().file.trees.last.Load().of[treeDigests].tree == nil {
		t.Error("the keys fit on one page")
	}
}

// TestKeyCache_PagesThatAreUsedAgain amends random keys between two reads from the file, so that the pages of their bucket change
// places: a page with the number of an earlier one is not taken for it.
func TestKeyCache_PagesThatAreUsedAgain(t *testing.T) {
	db := openFresh(t, Options{})
	keys, ctx, rnd := db.Keys(), t.Context(), rand.New(rand.NewPCG(1, 2))
	many, want := make([]apikey.Key, 200), make([]uint64, 200)
	for i := range many {
		many[i] = apikey.Key{ID: fmt.Sprint("key_", i), Account: "acme", Digest: apikey.Hasher{}.Text(fmt.Sprint(i))}
		want[i] = 1
	}
	if _, err := keys.Import(ctx, many); err != nil {
		t.Fatal(err)
	}
	for round := range 200 {
		for range rnd.IntN(4) + 1 {
			i := rnd.IntN(len(many))
			k, err := keys.AmendKey(ctx, many[i].ID, apikey.KeyChange{})
			if err != nil {
				t.Fatal(err)
			}
			want[i] = k.Version
		}
		for range 5 {
			i := rnd.IntN(len(many))
			forget(db.cache.Load(), &many[i])
			if got, err := keys.Find(ctx, many[i].Digest); err != nil || got.Version != want[i] {
				t.Fatalf("round %d: %+v, %v, want version %d", round, got, err, want[i])
			}
		}
	}
}

// TestKeyCache_UnknownKeysCostNoIO asks for keys that are not there, and for one that is in memory.
func TestKeyCache_UnknownKeysCostNoIO(t *testing.T) {
	db := openFresh(t, Options{})
	known := apikey.Key{ID: "known", Account: "acme", Digest: apikey.Hasher{}.Text("known")}
	if _, err := db.Keys().Import(t.Context(), []apikey.Key{known}); err != nil {
		t.Fatal(err)
	}
	if err := db.reload(); err != nil { // so that nothing is in memory
		t.Fatal(err)
	}
	who := apikey.NewIdentifier(db.Keys(), apikey.Hasher{})
	identify := func(text string, want authz.KeyStatus) {
		t.Helper()
		if k, _ := who.Identify(t.Context(), text, time.Now()); k.Status != want {
			t.Errorf("%q: %+v", text, k)
		}
	}
	before := db.views.Load()
	identify("known", authz.KeyActive)
	if reads := db.views.Load() - before; reads != 1 {
		t.Errorf("a key and its account took %d reads of the file, want 1", reads)
	}
	for i := range 1000 {
		identify(fmt.Sprint("unknown-", i), authz.KeyUnknown)
		identify("known", authz.KeyActive)
	}
	if reads := db.views.Load() - before; reads != 1 {
		t.Errorf("%d reads of the file, want 1", reads)
	}
}

// TestKeyCache_AccountThatComesLater asks for an account before it is there: that it was not there is forgotten at once.
func TestKeyCache_AccountThatComesLater(t *testing.T) {
	db := openFresh(t, Options{})
	for range 2 {
		if _, err := db.Keys().Account(t.Context(), "acme"); authz.KindOf(err) != authz.KindNotFound {
			t.Fatal(err)
		}
	}
	if _, err := db.Keys().Import(t.Context(), []apikey.Key{{ID: "k", Account: "acme", Digest: apikey.Hasher{}.Text("k")}}); err != nil {
		t.Fatal(err)
	}
	if a, err := db.Keys().Account(t.Context(), "acme"); err != nil || a.Status != authz.AccountActive {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestWrites_IDsThatAreNotUTF8 are refused: JSON would show them as others.
func TestWrites_IDsThatAreNotUTF8(t *testing.T) {
	db := openFresh(t, Options{})
	keys, ctx, bad := db.Keys(), t.Context(), "bad \xff"
	if _, err := keys.CreateAccount(ctx, apikey.Account{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"account": second(keys.CreateAccount(ctx, apikey.Account{ID: bad})),
		"key":     second(keys.CreateKey(ctx, apikey.Key{ID: bad, Account: "acme"})),
		"lineage": second(keys.CreateKey(ctx, apikey.Key{ID: "k", Account: "acme", Lineage: bad})),
	} {
		if err == nil || authz.KindOf(err) != authz.KindInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := keys.Import(ctx, []apikey.Key{{ID: "k", Account: bad}}); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("import: %v", err)
	}
	if err := db.Check(ctx); err != nil {
		t.Error(err)
	}
}
