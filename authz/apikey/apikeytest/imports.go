package apikeytest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

func (f *fixture) imports(keys []apikey.Key, want apikey.ImportResult) {
	f.Helper()
	got, err := f.store.Import(f.Ctx(), keys)
	if err != nil {
		f.Fatalf("import: %v", err)
	}
	if got != want {
		f.Fatalf("import: %+v, want %+v", got, want)
	}
}

func imports(f *fixture) {
	f.createAccount("there")
	keys := []apikey.Key{key("key_1", "there", 1), key("key_2", "new", 2), key("key_3", "new", 3), key("key_4", "newer", 4)}
	keys[2].Plan = "another"
	keys[3].Version = 5
	f.imports(keys, apikey.ImportResult{Created: 4, Accounts: 2})
	for _, k := range keys {
		k.Version = 1
		f.hasKey(&k)
	}
	there, made := account("there"), apikey.AccountFor(&keys[1])
	f.hasAccount(&there)
	f.hasAccount(&made)
	if made.Plan != "trial" || made.Status != authz.AccountActive || made.Version != 1 {
		f.Fatalf("an imported account: %+v", made)
	}
	if _, err := f.store.CreateAccount(f.Ctx(), account("new")); authz.KindOf(err) != authz.KindExists {
		f.Fatalf("an imported account can be made again: %v", err)
	}
}

func importNothing(f *fixture) {
	f.imports(nil, apikey.ImportResult{})
	f.Same("the listing", f.keyIDs(apikey.Page{}), "[]")
}

func importRepeated(f *fixture) {
	keys := []apikey.Key{key("key_1", "acme", 1), key("key_2", "acme", 2)}
	keys[1].Meta = nil
	f.imports(keys, apikey.ImportResult{Created: 2, Accounts: 1})
	before := f.everything()
	again := []apikey.Key{key("key_8", "acme", 1), key("key_9", "acme", 2)}
	for i := range again { // what an import does not set may differ
		again[i].Name, again[i].Meta = keys[i].Name, keys[i].Meta
		again[i].CreatedAt, again[i].UpdatedAt, again[i].Lineage = Now().AddDate(1, 0, 0), Now().AddDate(1, 0, 0), again[i].ID
	}
	f.imports(again, apikey.ImportResult{Unchanged: 2})
	f.Same("everything", f.everything(), before)

	third := key("key_3", "acme", 3)
	f.imports([]apikey.Key{third, keys[0], third}, apikey.ImportResult{Created: 1, Unchanged: 2})
}

func importFaults(f *fixture) {
	f.createAccount("acme")
	f.createKey(key("key_1", "acme", 1))
	before := f.everything()
	keys := []apikey.Key{
		key("key_10", "acme", 10),
		key("key_1", "elsewhere", 1), // 1: is there and belongs to another account
		key("key_11", "new", 11),
		key("key_12", "new", 10), // 3: comes twice and differs
		key("key_1", "new", 12),  // 4: the id is taken in the store
		key("key_10", "new", 13), // 5: the id is taken in the import
		key("key_14", "new", 14),
	}
	_, err := f.store.Import(f.Ctx(), keys)
	f.Refused(err, authz.KindConflict)
	var refused *apikey.ImportError
	if !errors.As(err, &refused) {
		f.Fatalf("%T is not an *ImportError", err)
	}
	var at []int
	for _, fault := range refused.Faults {
		at = append(at, fault.Index)
		if fault.Text == "" || strings.Contains(fault.Text, fmt.Sprintf("%x", keys[fault.Index].Digest)) {
			f.Errorf("fault %d says %q", fault.Index, fault.Text)
		}
	}
	f.Same("the faults", at, []int{1, 3, 4, 5})
	f.Same("everything", f.everything(), before)
	for _, i := range []int{0, 2, 6} {
		f.hasNoKey(keys[i])
		_, err := f.store.Find(f.Ctx(), keys[i].Digest)
		f.Refused(err, authz.KindNotFound)
	}
	_, err = f.store.Account(f.Ctx(), "new")
	f.Refused(err, authz.KindNotFound)
	f.imports([]apikey.Key{keys[0], keys[2], keys[6]}, apikey.ImportResult{Created: 3, Accounts: 1})
}

func importAmended(f *fixture) {
	keys := []apikey.Key{key("key_1", "acme", 1)}
	f.imports(keys, apikey.ImportResult{Created: 1, Accounts: 1})
	if _, err := f.store.AmendKey(f.Ctx(), "key_1", apikey.KeyChange{At: Now(), Disabled: new(true)}); err != nil {
		f.Fatal(err)
	}
	f.imports(keys, apikey.ImportResult{Unchanged: 1})
	if got, err := f.store.Key(f.Ctx(), "key_1"); err != nil || !got.Disabled || got.Version != 2 {
		f.Fatalf("the import switched a key on again: %+v, %v", got, err)
	}
	if _, err := f.store.AmendKey(f.Ctx(), "key_1", apikey.KeyChange{At: Now(), Name: new("another")}); err != nil {
		f.Fatal(err)
	}
	_, err := f.store.Import(f.Ctx(), keys)
	f.Refused(err, authz.KindConflict)
}

func importMany(f *fixture) {
	keys := make([]apikey.Key, 3000)
	for i := range keys {
		keys[i] = key(fmt.Sprintf("key_%d", i), fmt.Sprintf("acme_%d", i%100), i)
	}
	f.imports(keys, apikey.ImportResult{Created: len(keys), Accounts: 100})
	for i := 0; i < len(keys); i += 97 {
		if got, err := f.store.Find(f.Ctx(), keys[i].Digest); err != nil || got.ID != keys[i].ID {
			f.Fatalf("key %d: %+v, %v", i, got, err)
		}
	}
	if got := f.keys(apikey.Page{Limit: 10_000}); len(got) != len(keys) {
		f.Fatalf("%d keys are listed", len(got))
	}
	f.imports(keys, apikey.ImportResult{Unchanged: len(keys)})
}

// together runs n functions at once and waits for them.
func together(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}

func manyAmend(f *fixture) {
	f.createAccount("acme")
	f.createKey(key("key_1", "acme", 1))
	var done atomic.Int64
	together(16, func(i int) {
		for range 4 {
			old, err := f.store.Key(f.Ctx(), "key_1")
			if err != nil {
				f.Error(err)
				return
			}
			_, err = f.store.AmendKey(f.Ctx(), "key_1", apikey.KeyChange{At: Now(), IfVersion: old.Version, Name: new(fmt.Sprint(i))})
			switch {
			case err == nil:
				done.Add(1)
			case authz.KindOf(err) != authz.KindConflict:
				f.Error(err)
			}
		}
	})
	got, err := f.store.Key(f.Ctx(), "key_1")
	if err != nil || done.Load() == 0 || got.Version != uint64(done.Load())+1 {
		f.Fatalf("after %d writes: %+v, %v", done.Load(), got, err)
	}
	f.hasKey(got)
}

func manyCreate(f *fixture) {
	f.createAccount("acme")
	var made atomic.Int64
	together(24, func(i int) {
		k := key("key_1", "acme", i) // one id
		if i%2 == 1 {
			k = key(fmt.Sprint("key_", i+1), "acme", 1000) // one digest
		}
		if _, err := f.store.CreateKey(f.Ctx(), k); err == nil {
			made.Add(1)
		} else if authz.KindOf(err) != authz.KindExists {
			f.Error(err)
		}
	})
	if got := f.keys(apikey.Page{}); made.Load() != 2 || len(got) != 2 {
		f.Fatalf("%d were created and %d are listed, want 2", made.Load(), len(got))
	}
	for _, k := range f.keys(apikey.Page{}) {
		f.hasKey(k)
	}
}

func readAfterWrite(f *fixture) {
	f.createAccount("acme")
	together(12, func(i int) {
		k := key(fmt.Sprint("key_", i), "acme", i)
		if _, err := f.store.CreateKey(f.Ctx(), k); err != nil {
			f.Error(err)
			return
		}
		if got, err := f.store.Find(f.Ctx(), k.Digest); err != nil || got.Version != 1 {
			f.Errorf("key %d after it was created: %+v, %v", i, got, err)
		}
		if _, err := f.store.AmendKey(f.Ctx(), k.ID, apikey.KeyChange{At: Now(), Disabled: new(true)}); err != nil {
			f.Error(err)
		}
		if got, err := f.store.Find(f.Ctx(), k.Digest); err != nil || !got.Disabled {
			f.Errorf("key %d after it was disabled: %+v, %v", i, got, err)
		}
		if got, err := f.store.Key(f.Ctx(), k.ID); err != nil || !got.Disabled {
			f.Errorf("key %d by id after it was disabled: %+v, %v", i, got, err)
		}
	})
}
