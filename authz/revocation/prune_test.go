package revocation_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

func expiring(id string, at time.Time) revocation.Record {
	r := keyRecord(id)
	r.ExpiresAt = at
	return r
}

// TestSet_PruneOnTwoNodes lets time pass on two nodes that share a store. One of them prunes it.
func TestSet_PruneOnTwoNodes(t *testing.T) {
	c, store := &clock{noon()}, &faulty{Store: memory.NewRevocations()}
	here, there := revocation.NewSet(store, time.Minute, c.now), revocation.NewSet(store, time.Minute, c.now)
	const n = 2500 // more than a page
	for i := range n {
		revoke(t, here, expiring(fmt.Sprint("short-", i), noon().Add(time.Minute)))
	}
	revoke(t, here, expiring("long", noon().Add(time.Hour)))
	revoke(t, here, keyRecord("for good"))
	if err := there.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	lens := func(want int) {
		t.Helper()
		if here.Len() != want || there.Len() != want {
			t.Fatalf("%d records here and %d there, want %d", here.Len(), there.Len(), want)
		}
	}
	prune := func(s *revocation.Set) {
		t.Helper()
		if err := s.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c.t = noon().Add(time.Minute) // the last instant at which the records matter
	prune(here)
	prune(there)
	lens(n + 2)
	c.t = c.t.Add(1)
	store.err = errors.New("no")
	if err := here.Prune(t.Context()); !errors.Is(err, store.err) {
		t.Errorf("a store that fails: %v", err)
	}
	store.err = nil
	prune(here)
	if feed, err := store.Since(t.Context(), 0, 10*n); err != nil || len(feed) != 2 {
		t.Errorf("the store has %d records, %v", len(feed), err)
	}
	if there.Len() != n+2 {
		t.Errorf("%d records there before it was told", there.Len())
	}
	prune(there)
	lens(2)
	for name, s := range map[string]*revocation.Set{"here": here, "there": there} {
		if s.Key("short-0") || !s.Key("long") || !s.Key("for good") {
			t.Errorf("%s the wrong records are gone", name)
		}
	}
	revoke(t, here, expiring("short-0", noon().Add(time.Hour)))
	if err := there.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	lens(3)
	if !here.Key("short-0") || !there.Key("short-0") {
		t.Error("what was forgotten cannot be revoked again")
	}
	c.t = noon().AddDate(500, 0, 0) // further than nanoseconds can count
	prune(here)
	prune(there)
	lens(1)
}

// TestSet_PruneFreesMemory checks that the room of expired records is given back.
func TestSet_PruneFreesMemory(t *testing.T) {
	c := &clock{noon()}
	before := heap()
	s := revocation.NewSet(feed{size: 100_000, Store: memory.NewRevocations()}, time.Minute, c.now)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	full := heap() - before
	c.t = noon().Add(2 * time.Hour)
	if err := s.Prune(t.Context()); err != nil || s.Len() != 0 {
		t.Fatalf("%d records, %v", s.Len(), err)
	}
	if left := heap() - before; left > full/10 {
		t.Errorf("of %d bytes %d are left", full, left)
	}
	runtime.KeepAlive(s)
}

// TestSet_PruneSparesExtendedRecords extends expired records while others prune and sync: once a record is extended, every
// check honours it.
func TestSet_PruneSparesExtendedRecords(t *testing.T) {
	s := revocation.NewSet(memory.NewRevocations(), time.Minute, noon)
	done := make(chan struct{})
	var sweepers, workers sync.WaitGroup
	for _, sweep := range []func(context.Context) error{s.Prune, s.Prune, s.Sync} {
		sweepers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					if err := sweep(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for worker := range 4 {
		workers.Go(func() {
			for i := range 50 {
				id := fmt.Sprint(worker%2, "-", i) // two workers for each
				revoke(t, s, expiring(id, noon().Add(-1)))
				revoke(t, s, expiring(id, noon().Add(time.Hour)))
				if !s.Key(id) {
					t.Errorf("%s was extended and is trusted", id)
				}
			}
		})
	}
	workers.Wait()
	close(done)
	sweepers.Wait()
	if err := s.Prune(t.Context()); err != nil || s.Len() != 100 {
		t.Errorf("%d records, %v", s.Len(), err)
	}
	for i := range 100 {
		if id := fmt.Sprint(i%2, "-", i/2); !s.Key(id) {
			t.Errorf("%s is trusted", id)
		}
	}
}

// slow is a store that answers the first Add late.
type slow struct {
	revocation.Store
	adds          atomic.Int32
	added, answer chan struct{}
}

func (s *slow) Add(ctx context.Context, r revocation.Record) (revocation.Record, error) {
	stored, err := s.Store.Add(ctx, r)
	if s.adds.Add(1) == 1 {
		close(s.added)
		<-s.answer
	}
	return stored, err
}

// TestSet_PruneWaitsForRevoke has a record that is stored and not yet applied when a later one that replaced it expires: it
// must not outlive the later one in memory.
func TestSet_PruneWaitsForRevoke(t *testing.T) {
	store := &slow{Store: memory.NewRevocations(), added: make(chan struct{}), answer: make(chan struct{})}
	s := revocation.NewSet(store, time.Minute, noon)
	token := fullToken()
	suspension := revocation.Record{Kind: revocation.KindSuspension, Issuer: issuer, Value: token.Subject, At: noon().Add(-3)}
	lifted := suspension
	lifted.At, lifted.Lifted, lifted.ExpiresAt = noon().Add(-2), true, noon().Add(-1)
	var wg sync.WaitGroup
	wg.Go(func() { revoke(t, s, suspension) })
	<-store.added
	revoke(t, s, lifted)
	if s.Len() != 1 {
		t.Fatalf("%d records", s.Len())
	}
	wg.Go(func() {
		if err := s.Prune(t.Context()); err != nil {
			t.Error(err)
		}
	})
	for range 2000 { // enough time for a Prune that does not wait to drop it
		runtime.Gosched()
	}
	close(store.answer)
	wg.Wait()
	if s.Token(&token) || s.Len() != 0 {
		t.Errorf("a suspension that was lifted is back, %d records", s.Len())
	}
}
