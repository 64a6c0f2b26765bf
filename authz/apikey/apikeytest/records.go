package apikeytest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

func empty(f *fixture) {
	_, err := f.store.Find(f.Ctx(), digest(1))
	f.Refused(err, authz.KindNotFound)
	_, err = f.store.Key(f.Ctx(), "key_1")
	f.Refused(err, authz.KindNotFound)
	_, err = f.store.Account(f.Ctx(), "acme")
	f.Refused(err, authz.KindNotFound)
	_, err = f.store.AmendAccount(f.Ctx(), "acme", apikey.AccountChange{})
	f.Refused(err, authz.KindNotFound)
	_, err = f.store.AmendKey(f.Ctx(), "key_1", apikey.KeyChange{})
	f.Refused(err, authz.KindNotFound)
	_, _, err = f.store.RotateKey(f.Ctx(), "key_1", key("key_2", "acme", 2), Now())
	f.Refused(err, authz.KindNotFound)
	f.Same("the listing", f.keyIDs(apikey.Page{}), "[]")
	f.Same("the listing of an account", f.keyIDs(apikey.Page{Account: "acme"}), "[]")
	f.Same("the accounts", f.accountIDs(apikey.Page{}), "[]")
}

func createAccount(f *fixture) {
	want := account("acme")
	f.Same("what was created", f.createAccount("acme"), &want)
	f.hasAccount(&want)
	other := account("other")
	other.Version = 7
	made, err := f.store.CreateAccount(f.Ctx(), other)
	if err != nil || made.Version != 1 {
		f.Fatalf("versions count from 1: %+v, %v", made, err)
	}
}

func createAccountTwice(f *fixture) {
	first := f.createAccount("acme")
	again := account("acme")
	again.Name = "another"
	_, err := f.store.CreateAccount(f.Ctx(), again)
	f.Refused(err, authz.KindExists)
	f.hasAccount(first)
}

func amendAccount(f *fixture) {
	f.createAccount("acme")
	want := account("acme")
	want.Name, want.Plan, want.Status, want.Meta = "New", "free", authz.AccountSuspended, map[string]any{"a": "b"}
	want.UpdatedAt, want.Version = Now().Add(time.Minute), 2
	got, err := f.store.AmendAccount(f.Ctx(), "acme", apikey.AccountChange{
		At: want.UpdatedAt, Name: &want.Name, Plan: &want.Plan, Status: &want.Status, Meta: map[string]any{"a": "b", "tier": nil},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Same("what was amended", got, &want)
	f.hasAccount(&want)
}

// amendMeta merges into the stored meta, so that two callers who change different names both succeed.
func amendMeta(f *fixture) {
	f.createAccount("acme")
	f.createKey(key("key_1", "acme", 1))
	for _, patch := range []map[string]any{{"a": "1", "b": "2"}, {"c": "3"}, {"a": nil, "b": "4"}} {
		if _, err := f.store.AmendAccount(f.Ctx(), "acme", apikey.AccountChange{Meta: patch}); err != nil {
			f.Fatal(err)
		}
		if _, err := f.store.AmendKey(f.Ctx(), "key_1", apikey.KeyChange{Meta: patch}); err != nil {
			f.Fatal(err)
		}
	}
	wantAccount, wantKey := account("acme"), key("key_1", "acme", 1)
	maps.Copy(wantAccount.Meta, map[string]any{"b": "4", "c": "3"})
	maps.Copy(wantKey.Meta, map[string]any{"b": "4", "c": "3"})
	wantAccount.UpdatedAt, wantAccount.Version, wantKey.UpdatedAt, wantKey.Version = time.Time{}, 4, time.Time{}, 4
	f.hasAccount(&wantAccount)
	f.hasKey(&wantKey)
}

func amendAccountVersion(f *fixture) {
	first := f.createAccount("acme")
	_, err := f.store.AmendAccount(f.Ctx(), "acme", apikey.AccountChange{IfVersion: 2, Name: new("x")})
	f.Refused(err, authz.KindConflict)
	f.hasAccount(first)
	got, err := f.store.AmendAccount(f.Ctx(), "acme", apikey.AccountChange{IfVersion: 1, Name: new("x")})
	if err != nil || got.Version != 2 || got.Name != "x" {
		f.Fatalf("amended: %+v, %v", got, err)
	}
}

func createKey(f *fixture) {
	f.createAccount("acme")
	want := key("key_1", "acme", 1)
	f.Same("what was created", f.createKey(key("key_1", "acme", 1)), &want)

	second := key("key_2", "acme", 2)
	second.Version = 9
	if got := f.createKey(second); got.Version != 1 {
		f.Fatalf("versions count from 1: %+v", got)
	}
	bare := f.createKey(apikey.Key{ID: "key_3", Account: "acme", Lineage: "key_3", Digest: digest(3)})
	if !bare.ExpiresAt.IsZero() || !bare.NotBefore.IsZero() || !bare.OverlapEnds.IsZero() || bare.Disabled || bare.Meta != nil || bare.Scopes != nil {
		f.Fatalf("a bare key: %+v", bare)
	}
	f.hasKey(&want)
}

func lineage(f *fixture) {
	f.createAccount("acme")
	k := key("key_1", "acme", 1)
	k.Lineage = ""
	if got := f.createKey(k); got.Lineage != "key_1" {
		f.Fatalf("lineage %q of the first key of a chain", got.Lineage)
	}
	k = key("key_2", "acme", 2)
	k.Lineage = ""
	if _, err := f.store.Import(f.Ctx(), []apikey.Key{k}); err != nil {
		f.Fatal(err)
	}
	if got, err := f.store.Key(f.Ctx(), "key_2"); err != nil || got.Lineage != "key_2" {
		f.Fatalf("an imported key: %+v, %v", got, err)
	}
}

func createKeyTwice(f *fixture) {
	f.createAccount("acme")
	first := f.createKey(key("key_1", "acme", 1))
	_, err := f.store.CreateKey(f.Ctx(), key("key_1", "acme", 2))
	f.Refused(err, authz.KindExists)
	_, err = f.store.CreateKey(f.Ctx(), key("key_2", "acme", 1))
	f.Refused(err, authz.KindExists)
	f.hasKey(first)
	f.hasNoKey(key("key_2", "acme", 1))
	_, err = f.store.Find(f.Ctx(), digest(2))
	f.Refused(err, authz.KindNotFound)
}

func createKeyWithoutAccount(f *fixture) {
	k := key("key_1", "later", 1)
	_, err := f.store.CreateKey(f.Ctx(), k)
	f.Refused(err, authz.KindNotFound)
	f.hasNoKey(k)
	f.createAccount("later")
	f.createKey(k) // the refusal took neither the id nor the digest
}

func amendKey(f *fixture) {
	f.createAccount("acme")
	f.createKey(key("key_1", "acme", 1))
	want := key("key_1", "acme", 1)
	want.Name, want.Plan, want.Scopes, want.Disabled = "new", "free", []string{"admin"}, true
	want.ExpiresAt, want.Meta = Now().Add(time.Hour), map[string]any{"a": "b"}
	want.UpdatedAt, want.Version = Now().Add(time.Minute), 2
	got, err := f.store.AmendKey(f.Ctx(), "key_1", apikey.KeyChange{
		At: want.UpdatedAt, Name: &want.Name, Plan: &want.Plan, Scopes: &want.Scopes, Disabled: &want.Disabled,
		ExpiresAt: &want.ExpiresAt, Meta: map[string]any{"a": "b", "team": nil},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Same("what was amended", got, &want)
	f.hasKey(&want)

	want.ExpiresAt, want.Disabled, want.Version = time.Time{}, false, 3
	if _, err = f.store.AmendKey(f.Ctx(), "key_1", apikey.KeyChange{
		At: want.UpdatedAt, Disabled: new(false), ExpiresAt: &time.Time{},
	}); err != nil {
		f.Fatal(err)
	}
	f.hasKey(&want)
}

func amendKeyVersion(f *fixture) {
	f.createAccount("acme")
	first := f.createKey(key("key_1", "acme", 1))
	_, err := f.store.AmendKey(f.Ctx(), "key_1", apikey.KeyChange{IfVersion: 2, Disabled: new(true)})
	f.Refused(err, authz.KindConflict)
	f.hasKey(first)
	got, err := f.store.AmendKey(f.Ctx(), "key_1", apikey.KeyChange{IfVersion: 1, Disabled: new(true)})
	if err != nil || got.Version != 2 || !got.Disabled {
		f.Fatalf("amended: %+v, %v", got, err)
	}
}

func amendNothing(f *fixture) {
	f.createAccount("acme")
	want := *f.createKey(key("key_1", "acme", 1))
	want.Version, want.UpdatedAt = 2, Now().Add(time.Hour)
	if _, err := f.store.AmendKey(f.Ctx(), "key_1", apikey.KeyChange{At: want.UpdatedAt}); err != nil {
		f.Fatal(err)
	}
	f.hasKey(&want)
	a := account("acme")
	a.Version, a.UpdatedAt = 2, Now().Add(time.Hour)
	if _, err := f.store.AmendAccount(f.Ctx(), "acme", apikey.AccountChange{At: a.UpdatedAt}); err != nil {
		f.Fatal(err)
	}
	f.hasAccount(&a)
}

func rotate(f *fixture) {
	f.createAccount("acme")
	first := f.createKey(key("key_1", "acme", 1))
	at, ends := Now().Add(time.Minute), Now().Add(time.Hour)
	next := apikey.SuccessorOf(first, "key_2", digest(2), at)
	old, made, err := f.store.RotateKey(f.Ctx(), "key_1", next, ends)
	if err != nil {
		f.Fatal(err)
	}
	want := *first
	want.Successor, want.OverlapEnds, want.UpdatedAt, want.Version = "key_2", ends, at, 2
	f.Same("the old key", old, &want)
	f.Same("the new key", made, &next)
	f.hasKey(&want)
	f.hasKey(&next)
	if old.StatusAt(ends) != authz.KeyRotated || old.StatusAt(ends.Add(-1)) != authz.KeyActive {
		f.Fatal("the overlap ends at another instant")
	}
}

func rotateTwice(f *fixture) {
	f.createAccount("acme")
	first := f.createKey(key("key_1", "acme", 1))
	_, _, err := f.store.RotateKey(f.Ctx(), "key_1", apikey.SuccessorOf(first, "key_2", digest(2), Now()), Now())
	if err != nil {
		f.Fatal(err)
	}
	before := f.everything()
	third := apikey.SuccessorOf(first, "key_3", digest(3), Now())
	_, _, err = f.store.RotateKey(f.Ctx(), "key_1", third, Now())
	f.Refused(err, authz.KindConflict)
	f.Same("everything", f.everything(), before)
	if _, _, err = f.store.RotateKey(f.Ctx(), "key_2", third, Now()); err != nil {
		f.Fatalf("the successor is rotated: %v", err)
	}
}

func rotateRefused(f *fixture) {
	f.createAccount("acme")
	first := f.createKey(key("key_1", "acme", 1))
	f.createKey(key("key_2", "acme", 2))
	before := f.everything()
	_, _, err := f.store.RotateKey(f.Ctx(), "key_1", apikey.SuccessorOf(first, "key_2", digest(3), Now()), Now())
	f.Refused(err, authz.KindExists)
	_, _, err = f.store.RotateKey(f.Ctx(), "key_1", apikey.SuccessorOf(first, "key_3", digest(2), Now()), Now())
	f.Refused(err, authz.KindExists)
	_, _, err = f.store.RotateKey(f.Ctx(), "key_9", apikey.SuccessorOf(first, "key_3", digest(3), Now()), Now())
	f.Refused(err, authz.KindNotFound)
	f.Same("everything", f.everything(), before)
	f.hasKey(first)
	_, err = f.store.Find(f.Ctx(), digest(3))
	f.Refused(err, authz.KindNotFound)
}

func rotateLineage(f *fixture) {
	f.createAccount("acme")
	k := f.createKey(key("key_1", "acme", 1))
	for i := 2; i <= 4; i++ {
		next := apikey.SuccessorOf(k, fmt.Sprint("key_", i), digest(i), Now())
		if i == 3 {
			next.Lineage = "" // a second lineage would get a second balance
		}
		_, made, err := f.store.RotateKey(f.Ctx(), k.ID, next, Now())
		if err != nil || made.Lineage != "key_1" {
			f.Fatalf("rotation %d: %+v, %v", i, made, err)
		}
		k = made
	}
}

func listKeys(f *fixture) {
	f.createAccount("acme")
	want := []string{}
	for i := range 12 {
		id := fmt.Sprintf("key_%c", 'a'+(i*7)%12)
		f.createKey(key(id, "acme", i))
		want = append(want, id)
	}
	slices.Sort(want)
	f.Same("the listing", f.keyIDs(apikey.Page{}), fmt.Sprint(want))
	got, after := []string{}, ""
	for pages := 0; ; pages++ {
		page := f.keys(apikey.Page{After: after, Limit: 5})
		if len(page) > 5 || pages > 3 {
			f.Fatalf("page %d has %d keys", pages, len(page))
		}
		if len(page) == 0 {
			break
		}
		for _, k := range page {
			got = append(got, k.ID)
		}
		after = got[len(got)-1]
	}
	f.Same("the pages", fmt.Sprint(got), fmt.Sprint(want))
	f.Same("after an id that is not there", f.keyIDs(apikey.Page{After: "key_dd", Limit: 2}), "[key_e key_f]")
	f.Same("after the last", f.keyIDs(apikey.Page{After: "key_l"}), "[]")
}

func listAccountKeys(f *fixture) {
	// Some ids begin like others, to catch an index that does not keep them apart.
	n := 0
	for _, id := range []string{"a", "ab", "abc", "b"} {
		f.createAccount(id)
		for i := range 3 {
			n++
			f.createKey(key(fmt.Sprintf("key_%d_%s", i, id), id, n))
		}
	}
	f.Same("the keys of ab", f.keyIDs(apikey.Page{Account: "ab"}), "[key_0_ab key_1_ab key_2_ab]")
	f.Same("the first page of a", f.keyIDs(apikey.Page{Account: "a", Limit: 2}), "[key_0_a key_1_a]")
	f.Same("the second page of a", f.keyIDs(apikey.Page{Account: "a", Limit: 2, After: "key_1_a"}), "[key_2_a]")
	f.Same("the keys of an account that does not exist", f.keyIDs(apikey.Page{Account: "bc"}), "[]")
	f.Same("all keys", fmt.Sprint(len(f.keys(apikey.Page{}))), "12")
}

func listAccounts(f *fixture) {
	for _, id := range []string{"c", "a", "d", "b"} {
		f.createAccount(id)
	}
	f.Same("the listing", f.accountIDs(apikey.Page{Account: "ignored"}), "[a b c d]")
	f.Same("the first page", f.accountIDs(apikey.Page{Limit: 3}), "[a b c]")
	f.Same("the second page", f.accountIDs(apikey.Page{Limit: 3, After: "c"}), "[d]")
}

func listDefault(f *fixture) {
	keys := make([]apikey.Key, 101)
	for i := range keys {
		keys[i] = key(fmt.Sprintf("key_%03d", i), fmt.Sprintf("acme_%03d", i), i)
	}
	if _, err := f.store.Import(f.Ctx(), keys); err != nil {
		f.Fatal(err)
	}
	accounts, err := f.store.Accounts(f.Ctx(), apikey.Page{})
	if err != nil || len(accounts) != 100 || len(f.keys(apikey.Page{})) != 100 {
		f.Fatalf("%d accounts and %d keys, want 100: %v", len(accounts), len(f.keys(apikey.Page{})), err)
	}
}

// onPlans has more records than a store reads at a time, and a key whose name and meta look like a plan.
func onPlans(f *fixture) {
	const many = 10_050
	keys := make([]apikey.Key, many)
	for i := range keys {
		keys[i] = key(fmt.Sprintf("key_%05d", i), fmt.Sprintf("acme_%05d", i), i)
	}
	if _, err := f.store.Import(f.Ctx(), keys); err != nil {
		f.Fatal(err)
	}
	f.createAccount("zeta")
	plain := key("key_zeta", "zeta", many)
	plain.Plan, plain.Name, plain.Meta = "", `"plan":"x"`, map[string]any{"plan": "x"}
	f.createKey(plain)
	if _, err := f.store.CreateAccount(f.Ctx(), apikey.Account{ID: "planless", Status: authz.AccountActive}); err != nil {
		f.Fatal(err)
	}
	rotated := key("key_old", "zeta", many+1)
	rotated.ExpiresAt = Now().Add(time.Hour)
	f.createKey(rotated)
	next := apikey.SuccessorOf(&rotated, "key_new", digest(many+2), Now())
	if _, _, err := f.store.RotateKey(f.Ctx(), "key_old", next, Now().Add(time.Minute)); err != nil {
		f.Fatal(err)
	}

	count := make(map[string]int)
	some := make(map[string]apikey.PlanUse)
	err := f.store.OnPlans(f.Ctx(), func(u apikey.PlanUse) error {
		kind := "key "
		if u.Key == "" {
			kind = "account "
		}
		count[kind+u.Plan]++
		some[kind+cmp.Or(u.Key, u.Account)] = u
		return nil
	})
	if err != nil || len(count) != 3 || count["account trial"] != many || count["account pro"] != 1 || count["key trial"] != many+2 {
		f.Errorf("%v, %v", count, err)
	}
	f.Same("the use by a rotated key", some["key key_old"],
		apikey.PlanUse{Plan: rotated.Plan, Account: "zeta", Key: "key_old", CreatedAt: rotated.CreatedAt, Ends: Now().Add(time.Minute)})
	f.Same("the use by its successor", some["key key_new"],
		apikey.PlanUse{Plan: rotated.Plan, Account: "zeta", Key: "key_new", CreatedAt: Now(), Ends: rotated.ExpiresAt})
	f.Same("the use by an account", some["account zeta"], apikey.PlanUse{Plan: "pro", Account: "zeta"})
	stop := errors.New("enough")
	if err := f.store.OnPlans(f.Ctx(), func(apikey.PlanUse) error { return stop }); !errors.Is(err, stop) {
		f.Errorf("an error of the visitor: %v", err)
	}
}

func oddIDs(f *fixture) {
	for i, id := range []string{"a/b", "a:b", "a{b}", "a*", "ä", "a\x00b", "%s", "1"} {
		f.createAccount(id)
		f.createKey(key("key_"+id, id, i))
		f.Same("the keys of the account", f.keyIDs(apikey.Page{Account: id}), fmt.Sprint([]string{"key_" + id}))
	}
}
