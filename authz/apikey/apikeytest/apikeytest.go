package apikeytest

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/storetest"
)

// Run runs the suite. open returns an empty store, whose clock is now, and closes it in t.Cleanup; it may also check there that what
// the store wrote is sound.
func Run(t *testing.T, open func(t *testing.T, now func() time.Time) apikey.Store) {
	for _, test := range []struct {
		name string
		run  func(*fixture)
	}{
		{"nothing is found in an empty store", empty},
		{"account is created", createAccount},
		{"account id is taken", createAccountTwice},
		{"account is amended", amendAccount},
		{"meta is merged", amendMeta},
		{"account version is asked for", amendAccountVersion},
		{"key is created", createKey},
		{"key without lineage begins one", lineage},
		{"key id or digest is taken", createKeyTwice},
		{"key needs its account", createKeyWithoutAccount},
		{"key is amended", amendKey},
		{"key version is asked for", amendKeyVersion},
		{"fields that are not named stay", amendNothing},
		{"key is rotated", rotate},
		{"key is rotated once", rotateTwice},
		{"rotation is both or neither", rotateRefused},
		{"rotation keeps the lineage", rotateLineage},
		{"listing in pages", listKeys},
		{"listing of an account", listAccountKeys},
		{"listing of accounts", listAccounts},
		{"listing of a hundred", listDefault},
		{"plans are found on accounts and keys", onPlans},
		{"ids with odd characters", oddIDs},
		{"import", imports},
		{"import of nothing", importNothing},
		{"import repeated", importRepeated},
		{"import names every fault and changes nothing", importFaults},
		{"import keeps what an amended key says", importAmended},
		{"import of a few thousand", importMany},
		{"many writers of one key", manyAmend},
		{"many creators of one key", manyCreate},
		{"readers see what was acknowledged", readAfterWrite},
		{"random verbs answer as the oracle does", random},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(&fixture{Fixture: storetest.Fixture{T: t}, store: open(t, Now)}) })
	}
}

// Now is the instant at which the suite takes place.
func Now() time.Time { return time.Date(2024, 5, 15, 12, 15, 0, 0, time.UTC) }

// fixture is one store under test.
type fixture struct {
	storetest.Fixture
	store apikey.Store
}

// digest is the digest of the n-th text.
func digest(n int) apikey.Digest { return apikey.Hasher{}.Text(fmt.Sprint("text ", n)) }

// account is an account with something in every field.
func account(id string) apikey.Account {
	return apikey.Account{
		ID: id, Name: "Name of " + id, Plan: "pro", Status: authz.AccountActive, Meta: map[string]any{"tier": "gold"},
		CreatedAt: Now(), UpdatedAt: Now(), Version: 1,
	}
}

// key is a key with something in every field; n chooses its digest.
func key(id, account string, n int) apikey.Key {
	return apikey.Key{
		ID: id, Name: "name of " + id, Account: account, Plan: "trial", Environment: "live", Scopes: []string{"read", "write"},
		NotBefore: Now().Add(-time.Hour), ExpiresAt: Now().Add(1000 * time.Hour), Meta: map[string]any{"team": "blue"},
		Lineage: id, CreatedAt: Now(), UpdatedAt: Now(), Version: 1, Digest: digest(n),
	}
}

func (f *fixture) createAccount(id string) *apikey.Account {
	f.Helper()
	a, err := f.store.CreateAccount(f.Ctx(), account(id))
	if err != nil {
		f.Fatalf("create account %q: %v", id, err)
	}
	return a
}

func (f *fixture) createKey(k apikey.Key) *apikey.Key {
	f.Helper()
	made, err := f.store.CreateKey(f.Ctx(), k)
	if err != nil {
		f.Fatalf("create key %q: %v", k.ID, err)
	}
	f.hasKey(made)
	return made
}

// hasKey checks that every way of reading finds exactly that key.
func (f *fixture) hasKey(want *apikey.Key) {
	f.Helper()
	got, err := f.store.Key(f.Ctx(), want.ID)
	if err != nil {
		f.Fatalf("key %q: %v", want.ID, err)
	}
	f.Same("the key by id", got, want)
	if got, err = f.store.Find(f.Ctx(), want.Digest); err != nil {
		f.Fatalf("key %q by digest: %v", want.ID, err)
	}
	f.Same("the key by digest", got, want)
	for _, account := range []string{"", want.Account} {
		found := false
		for _, k := range f.keys(apikey.Page{Account: account, Limit: 100_000}) {
			if k.ID == want.ID {
				f.Same("the key in the listing", k, want)
				found = true
			}
		}
		if !found {
			f.Fatalf("key %q is not listed for account %q", want.ID, account)
		}
	}
}

// hasNoKey checks that no way of reading finds the key.
func (f *fixture) hasNoKey(k apikey.Key) {
	f.Helper()
	_, err := f.store.Key(f.Ctx(), k.ID)
	f.Refused(err, authz.KindNotFound)
	if found, err := f.store.Find(f.Ctx(), k.Digest); err == nil && found.ID == k.ID {
		f.Fatalf("key %q is found by its digest", k.ID)
	}
	for _, listed := range f.keys(apikey.Page{Limit: 100_000}) {
		if listed.ID == k.ID {
			f.Fatalf("key %q is listed", k.ID)
		}
	}
}

func (f *fixture) hasAccount(want *apikey.Account) {
	f.Helper()
	got, err := f.store.Account(f.Ctx(), want.ID)
	if err != nil {
		f.Fatalf("account %q: %v", want.ID, err)
	}
	f.Same("the account", got, want)
}

func (f *fixture) keys(p apikey.Page) []*apikey.Key {
	f.Helper()
	keys, err := f.store.Keys(f.Ctx(), p)
	if err != nil {
		f.Fatalf("list %+v: %v", p, err)
	}
	return keys
}

func (f *fixture) keyIDs(p apikey.Page) string {
	f.Helper()
	ids := []string{}
	for _, k := range f.keys(p) {
		ids = append(ids, k.ID)
	}
	return fmt.Sprint(ids)
}

func (f *fixture) accountIDs(p apikey.Page) string {
	f.Helper()
	accounts, err := f.store.Accounts(f.Ctx(), p)
	if err != nil {
		f.Fatalf("list %+v: %v", p, err)
	}
	ids := []string{}
	for _, a := range accounts {
		ids = append(ids, a.ID)
	}
	return fmt.Sprint(ids)
}

// everything is all that the store holds, or its hash, to see that nothing was changed.
func (f *fixture) everything() string {
	f.Helper()
	accounts, err := f.store.Accounts(f.Ctx(), apikey.Page{Limit: 100_000})
	if err != nil {
		f.Fatal(err)
	}
	all := storetest.Text(f.keys(apikey.Page{Limit: 100_000})) + storetest.Text(accounts)
	if len(all) > 10_000 {
		return fmt.Sprintf("%x", sha256.Sum256([]byte(all)))
	}
	return all
}
