package revocationtest

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/storetest"
)

// Run runs the suite. open returns an empty store, whose clock is now, and closes it in t.Cleanup; it may also check there that what
// the store wrote is sound.
func Run(t *testing.T, open func(t *testing.T, now func() time.Time) revocation.Store) {
	for _, test := range []struct {
		name string
		run  func(*fixture)
	}{
		{"nothing is revoked in an empty store", empty},
		{"record is stored whole", add},
		{"revisions rise from 1 without repeats", revisions},
		{"record that changes nothing keeps its revision", addAgain},
		{"record that reaches further is merged", merge},
		{"record that reaches less far weakens nothing", weaker},
		{"records of other kinds, issuers and values are apart", apart},
		{"since goes on where it stopped", since},
		{"since finds what is left of many merges", sinceMerged},
		{"many writers", many},
		{"suspension that happened last holds", suspend},
		{"prune forgets what has expired", prune},
		{"prune forgets at most as many as it may", pruneLimit},
		{"prune knows instants far away", pruneFarAway},
		{"revision of a forgotten record is not used again", pruneRevisions},
		{"record that was forgotten begins anew", pruneAnew},
		{"record that was extended is not forgotten", pruneExtended},
		{"prune and add at once", pruneConcurrent},
		{"a set follows", follow},
		{"random records answer as the oracle does", random},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(&fixture{Fixture: storetest.Fixture{T: t}, store: open(t, Now)}) })
	}
}

// Now is the instant at which the suite takes place.
func Now() time.Time { return time.Date(2024, 5, 15, 12, 15, 0, 0, time.UTC) }

// fixture is one store under test.
type fixture struct {
	storetest.Fixture
	store revocation.Store
}

func key(id string) revocation.Record {
	return revocation.Record{Kind: revocation.KindKey, Value: id, At: Now(), Cause: "leaked"}
}

func account(id string, before time.Time) revocation.Record {
	return revocation.Record{
		Kind: revocation.KindAccount, Value: id, Before: before, At: Now(), Cause: "fraud", ExpiresAt: before.Add(time.Hour),
	}
}

func (f *fixture) add(r revocation.Record) revocation.Record {
	f.Helper()
	stored, err := f.store.Add(f.Ctx(), r)
	if err != nil {
		f.Fatalf("add %+v: %v", r, err)
	}
	got, ok, err := f.store.Get(f.Ctx(), r.Kind, r.Issuer, r.Value)
	if err != nil || !ok {
		f.Fatalf("get %+v: %v, %v", r, ok, err)
	}
	f.Same("the record", got, stored)
	return stored
}

func (f *fixture) since(after uint64, limit int) []revocation.Record {
	f.Helper()
	records, err := f.store.Since(f.Ctx(), after, limit)
	if err != nil {
		f.Fatalf("since %d: %v", after, err)
	}
	for i, r := range records {
		if r.Revision <= after || i > 0 && r.Revision <= records[i-1].Revision || len(records) > limit {
			f.Fatalf("since %d, at most %d: %+v", after, limit, records)
		}
	}
	return records
}

func empty(f *fixture) {
	if got := f.since(0, 10); len(got) != 0 {
		f.Fatalf("since 0: %+v", got)
	}
	if got := f.since(math.MaxUint64, 10); len(got) != 0 {
		f.Fatalf("since the last possible: %+v", got)
	}
	if _, ok, err := f.store.Get(f.Ctx(), revocation.KindKey, "", "key_1"); ok || err != nil {
		f.Fatalf("get: %v, %v", ok, err)
	}
}

func add(f *fixture) {
	want := revocation.Record{
		Kind: "jti", Issuer: "https://issuer.example", Value: "abc", Before: Now(), At: Now().Add(time.Second), Cause: "left",
		ExpiresAt: Now().Add(time.Hour),
	}
	got := f.add(want)
	want.Revision = got.Revision
	f.Same("the record", got, want)
	f.Same("the feed", f.since(0, 10), []revocation.Record{want})
}

func revisions(f *fixture) {
	for i := range uint64(5) {
		r := key(fmt.Sprint("key_", i))
		r.Revision = 77 // the store decides
		if got := f.add(r); got.Revision < i+1 || i == 0 && got.Revision != 1 {
			f.Fatalf("record %d has revision %d", i, got.Revision)
		}
	}
	if got := f.since(0, 10); len(got) != 5 {
		f.Fatalf("since 0: %+v", got)
	}
}

func addAgain(f *fixture) {
	first := f.add(key("key_1"))
	again := key("key_1")
	again.At, again.Cause = Now().Add(time.Hour), "another"
	f.Same("the record that was added again", f.add(again), first)
	f.Same("the feed", f.since(0, 10), []revocation.Record{first})
}

func merge(f *fixture) {
	old := f.add(account("acme", Now()))
	f.add(key("key_1"))
	further := account("acme", Now().Add(time.Hour))
	further.Cause = "again"
	got := f.add(further)
	if got.Revision <= old.Revision+1 || !got.Before.Equal(further.Before) || got.Cause != "again" || !got.ExpiresAt.Equal(further.ExpiresAt) {
		f.Fatalf("merged: %+v", got)
	}
	feed := f.since(0, 10)
	if len(feed) != 2 || feed[0].Value != "key_1" {
		f.Fatalf("a merged record appears once, at its latest revision: %+v", feed)
	}
	f.Same("the feed since then", f.since(feed[0].Revision, 10), []revocation.Record{got})

	forGood := account("acme", Now())
	forGood.Before, forGood.ExpiresAt = time.Time{}, time.Time{}
	if got = f.add(forGood); !got.Before.IsZero() || !got.ExpiresAt.IsZero() {
		f.Fatalf("for good: %+v", got)
	}
}

func weaker(f *fixture) {
	strong := f.add(account("acme", Now()))
	f.Same("the record", f.add(account("acme", Now().Add(-time.Hour))), strong)
	forGood := f.add(key("key_1"))
	less := key("key_1")
	less.Before, less.ExpiresAt = Now(), Now()
	f.Same("the record", f.add(less), forGood)
	// One bound reaches further and the other less far: the further of each holds.
	mixed := account("acme", Now().Add(time.Hour))
	mixed.ExpiresAt = Now()
	got := f.add(mixed)
	if !got.Before.Equal(mixed.Before) || !got.ExpiresAt.Equal(strong.ExpiresAt) {
		f.Fatalf("merged: %+v", got)
	}
}

func apart(f *fixture) {
	records := []revocation.Record{
		{Kind: "key", Value: "a"}, {Kind: "account", Value: "a"}, {Kind: "key", Issuer: "a", Value: "a"},
		{Kind: "key", Issuer: "a", Value: ""}, {Kind: "key", Value: "aa"}, {Kind: "key", Issuer: "aa", Value: ""},
		{Kind: "key", Issuer: "a:b", Value: "c"}, {Kind: "key", Issuer: "a", Value: "b:c"}, {Kind: "keya", Value: ""},
		{Kind: "key", Value: "\x00"}, {Kind: "key", Issuer: "\x00", Value: ""}, {Kind: "key", Value: "{a}%s\n"},
	}
	for i, r := range records {
		r.At, r.Cause = Now(), fmt.Sprint("cause ", i)
		f.add(r)
	}
	for i, r := range records {
		got, ok, err := f.store.Get(f.Ctx(), r.Kind, r.Issuer, r.Value)
		if err != nil || !ok || got.Cause != fmt.Sprint("cause ", i) {
			f.Errorf("record %d: %+v, %v, %v", i, got, ok, err)
		}
	}
	if got := f.since(0, 100); len(got) != len(records) {
		f.Errorf("%d records in the feed", len(got))
	}
}

func since(f *fixture) {
	for i := range 25 {
		f.add(key(fmt.Sprint("key_", i)))
	}
	f.add(account("acme", Now()))
	f.add(account("acme", Now().Add(1)))
	seen, after := map[string]bool{}, uint64(0)
	for {
		page := f.since(after, 4)
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			if seen[r.Value] {
				f.Fatalf("%q comes twice", r.Value)
			}
			seen[r.Value], after = true, r.Revision
		}
	}
	if len(seen) != 26 {
		f.Fatalf("%d records in the feed", len(seen))
	}
}

// sinceMerged merges so often that most records that were written are out of date.
func sinceMerged(f *fixture) {
	const records, rounds = 7, 60
	for i := range records * rounds {
		f.add(account(fmt.Sprint("account_", i%records), Now().Add(time.Duration(i))))
		want := f.since(0, 100)
		if len(want) != min(i+1, records) {
			f.Fatalf("after %d writes: %+v", i+1, want)
		}
		if i >= records {
			f.Same("the end of the feed", f.since(want[records-3].Revision, 100), want[records-2:])
			f.Same("the beginning of the feed", f.since(0, 2), want[:2])
		}
	}
}

func many(f *fixture) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := map[uint64]string{}
	for i := range 24 {
		wg.Go(func() {
			r := key(fmt.Sprint("key_", i))
			if i%3 == 0 {
				r = account("acme", Now().Add(time.Duration(i)*time.Hour)) // all merge into one
			}
			got, err := f.store.Add(f.Ctx(), r)
			if err != nil {
				f.Error(err)
				return
			}
			found, ok, err := f.store.Get(f.Ctx(), r.Kind, r.Issuer, r.Value)
			if err != nil || !ok || found.Revision < got.Revision || found.Before.Before(r.Before) {
				f.Errorf("after it was acknowledged: %+v, %v, %v", found, ok, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if other, ok := taken[got.Revision]; ok && other != r.Value {
				f.Errorf("revision %d belongs to %q and %q", got.Revision, other, r.Value)
			}
			taken[got.Revision] = r.Value
		})
	}
	wg.Wait()
	got, _, err := f.store.Get(f.Ctx(), revocation.KindAccount, "", "acme")
	if err != nil || !got.Before.Equal(Now().Add(21*time.Hour)) {
		f.Fatalf("the merged record: %+v, %v", got, err)
	}
	if feed := f.since(0, 100); len(feed) != 17 {
		f.Fatalf("%d records in the feed, want 17", len(feed))
	}
}

// follow checks that what one node revokes reaches the set of another.
func follow(f *fixture) {
	here, there := revocation.NewSet(f.store, time.Minute, Now), revocation.NewSet(f.store, time.Minute, Now)
	if _, err := here.Revoke(f.Ctx(), key("key_1")); err != nil {
		f.Fatal(err)
	}
	if _, err := here.Revoke(f.Ctx(), account("acme", Now())); err != nil {
		f.Fatal(err)
	}
	if err := there.Sync(f.Ctx()); err != nil {
		f.Fatal(err)
	}
	for name, s := range map[string]*revocation.Set{"here": here, "there": there} {
		if !s.Key("key_1") || s.Key("key_2") || !s.Account("acme", Now()) || s.Account("acme", Now().Add(1)) || s.Len() != 2 {
			f.Errorf("the set %s does not say what was revoked", name)
		}
	}
}
