package revocationtest

import (
	"fmt"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

func expiring(id string, at time.Time) revocation.Record {
	r := key(id)
	r.ExpiresAt = at
	return r
}

func suspension(at time.Time, lifted bool) revocation.Record {
	return revocation.Record{Kind: revocation.KindSuspension, Issuer: "https://issuer.example", Value: "subject", At: at, Lifted: lifted}
}

func (f *fixture) prune(now time.Time, limit int) int {
	f.Helper()
	n, err := f.store.Prune(f.Ctx(), now, limit)
	if err != nil || n > max(limit, 0) {
		f.Fatalf("prune at most %d: %d, %v", limit, n, err)
	}
	return n
}

// has checks which keys are in the feed, in its order, and that Get agrees.
func (f *fixture) has(ids ...string) {
	f.Helper()
	var got []string
	for _, r := range f.since(0, 1000) {
		got = append(got, r.Value)
		stored, ok, err := f.store.Get(f.Ctx(), r.Kind, r.Issuer, r.Value)
		if err != nil || !ok {
			f.Fatalf("get %+v: %v, %v", r, ok, err)
		}
		f.Same("the record", stored, r)
	}
	f.Same("what is there", got, ids)
}

func (f *fixture) gone(id string) {
	f.Helper()
	if r, ok, err := f.store.Get(f.Ctx(), revocation.KindKey, "", id); ok || err != nil {
		f.Fatalf("get %q: %+v, %v", id, r, err)
	}
}

// suspend checks that the suspension that happened last holds, whichever is added first.
func suspend(f *fixture) {
	old := suspension(Now(), false)
	old.Cause = "left"
	first := f.add(old)
	late := suspension(Now().Add(-1), true)
	late.ExpiresAt, late.Cause = Now().Add(time.Hour), "late"
	f.Same("after an older one", f.add(late), first)
	same := suspension(Now(), true)
	f.Same("after one of the same instant that lifts it", f.add(same), first)

	lift := suspension(Now().Add(1), true)
	lift.ExpiresAt, lift.Cause = Now().Add(time.Hour), "back"
	got := f.add(lift)
	if got.Revision <= first.Revision {
		f.Fatalf("a suspension that was lifted: %+v, was %+v", got, first)
	}
	lift.Revision = got.Revision
	f.Same("the suspension that was lifted", got, lift)
	f.Same("after the first one again", f.add(old), got)
	f.Same("the feed", f.since(0, 10), []revocation.Record{got})

	again := suspension(Now().Add(1), false)
	if got = f.add(again); got.Lifted || !got.ExpiresAt.IsZero() || got.Cause != "" {
		f.Fatalf("suspended at the same instant: %+v", got)
	}
	if f.prune(Now().Add(2*time.Hour), 10) != 0 {
		f.Fatal("a suspension that does not expire was forgotten")
	}
}

func prune(f *fixture) {
	if n := f.prune(Now(), 10); n != 0 {
		f.Fatalf("%d records of none were forgotten", n)
	}
	f.add(key("for good"))
	f.add(expiring("past", Now().Add(-1)))
	f.add(expiring("now", Now()))
	f.add(expiring("elsewhere", Now().Add(-time.Minute).In(time.FixedZone("", 3*60*60))))
	f.add(expiring("next", Now().Add(1)))
	if n := f.prune(Now(), 10); n != 2 {
		f.Fatalf("%d records were forgotten, want 2", n)
	}
	f.has("for good", "now", "next")
	f.gone("past")
	f.gone("elsewhere")
	if n := f.prune(Now(), 10); n != 0 {
		f.Fatalf("%d records were forgotten a second time", n)
	}
	if n := f.prune(Now().Add(1), 10); n != 1 {
		f.Fatalf("%d records were forgotten, want 1", n)
	}
	f.has("for good", "next")
	if n := f.prune(Now().AddDate(1000, 0, 0), 10); n != 1 {
		f.Fatalf("%d records were forgotten, want 1", n)
	}
	f.has("for good")
}

func pruneLimit(f *fixture) {
	for i := range 10 {
		f.add(expiring(fmt.Sprint("key_", i), Now().Add(time.Duration(i%2)*time.Hour)))
	}
	now := Now().Add(1)
	for _, step := range []struct{ limit, forgets, left int }{
		{0, 0, 10}, {-1, 0, 10}, {2, 2, 8}, {1, 1, 7}, {3, 2, 5}, {3, 0, 5},
	} {
		if n := f.prune(now, step.limit); n != step.forgets {
			f.Fatalf("at most %d: %d were forgotten, want %d", step.limit, n, step.forgets)
		}
		if left := f.since(0, 100); len(left) != step.left {
			f.Fatalf("%d are left, want %d", len(left), step.left)
		}
	}
	f.has("key_1", "key_3", "key_5", "key_7", "key_9")
}

func pruneFarAway(f *fixture) {
	year := func(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 7, time.UTC) }
	years := []int{1, 1677, 1969, 1970, 2262, 2500, 9000}
	for _, y := range years {
		f.add(expiring(fmt.Sprint(y), year(y)))
	}
	for i, y := range years {
		if n := f.prune(year(y), 100); n != 0 {
			f.Fatalf("%d were forgotten at the instant at which %d expires", n, y)
		}
		if n := f.prune(year(y).Add(1), 100); n != 1 {
			f.Fatalf("%d were forgotten after %d", n, y)
		}
		f.gone(fmt.Sprint(y))
		if left := f.since(0, 100); len(left) != len(years)-i-1 {
			f.Fatalf("%d are left after %d", len(left), y)
		}
	}
}

// pruneRevisions forgets all records, the one with the latest revision too.
func pruneRevisions(f *fixture) {
	f.add(expiring("key_1", Now().Add(-1)))
	last := f.add(expiring("key_2", Now().Add(-1)))
	if n := f.prune(Now(), 10); n != 2 {
		f.Fatalf("%d records were forgotten, want 2", n)
	}
	f.has()
	next := f.add(key("key_3"))
	if next.Revision <= last.Revision {
		f.Fatalf("revision %d was used before", next.Revision)
	}
	f.Same("the feed since then", f.since(last.Revision, 10), []revocation.Record{next})
}

func pruneAnew(f *fixture) {
	old := account("acme", Now().Add(time.Hour))
	old.ExpiresAt = Now().Add(-1)
	old = f.add(old)
	f.prune(Now(), 10)
	less := account("acme", Now())
	got := f.add(less)
	if got.Revision <= old.Revision {
		f.Fatalf("revision %d was used before", got.Revision)
	}
	less.Revision = got.Revision
	f.Same("the record that was forgotten and added anew", got, less)
}

func pruneExtended(f *fixture) {
	f.add(expiring("later", Now().Add(-1)))
	f.add(expiring("for good", Now().Add(-1)))
	f.add(expiring("twice", Now().Add(-3)))
	f.add(expiring("twice", Now().Add(-2)))
	f.add(expiring("later", Now().Add(time.Hour)))
	f.add(key("for good"))
	f.add(expiring("later", Now().Add(-1))) // changes nothing
	if n := f.prune(Now(), 10); n != 1 {
		f.Fatalf("%d records were forgotten, want 1", n)
	}
	f.has("later", "for good")
	if n := f.prune(Now().Add(2*time.Hour), 10); n != 1 {
		f.Fatalf("%d records were forgotten, want 1", n)
	}
	f.has("for good")
}

// pruneConcurrent extends expired records while others prune: an acknowledged record stays.
func pruneConcurrent(f *fixture) {
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 25 {
				id := fmt.Sprint(worker, "-", i)
				for _, r := range []revocation.Record{expiring(id, Now().Add(-1)), expiring(id, Now().Add(time.Hour))} {
					if _, err := f.store.Add(f.Ctx(), r); err != nil {
						f.Error(err)
					}
				}
				if r, ok, err := f.store.Get(f.Ctx(), revocation.KindKey, "", id); !ok || err != nil || !r.ExpiresAt.After(Now()) {
					f.Errorf("%s was extended: %+v, %v, %v", id, r, ok, err)
				}
			}
		})
		wg.Go(func() {
			for range 25 {
				if n, err := f.store.Prune(f.Ctx(), Now(), 3); err != nil || n > 3 {
					f.Errorf("prune: %d, %v", n, err)
				}
			}
		})
	}
	wg.Wait()
	if got := f.since(0, 1000); len(got) != 100 {
		f.Errorf("%d records are left, want 100", len(got))
	}
}
