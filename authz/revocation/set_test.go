package revocation_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

func noon() time.Time { return time.Date(2024, 5, 15, 12, 0, 0, 0, time.UTC) }

func keyRecord(id string) revocation.Record {
	return revocation.Record{Kind: revocation.KindKey, Value: id, At: noon()}
}

func accountRecord(id string, before time.Time) revocation.Record {
	return revocation.Record{Kind: revocation.KindAccount, Value: id, Before: before, At: noon()}
}

// clock is a clock that the test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

// faulty is a store that fails when told to.
type faulty struct {
	revocation.Store
	err error
}

func (f *faulty) Add(ctx context.Context, r revocation.Record) (revocation.Record, error) {
	if f.err != nil {
		return revocation.Record{}, f.err
	}
	return f.Store.Add(ctx, r)
}

func (f *faulty) Since(ctx context.Context, after uint64, limit int) ([]revocation.Record, error) {
	if f.err != nil {
		return nil, f.err
	}
	return f.Store.Since(ctx, after, limit)
}

func (f *faulty) Prune(ctx context.Context, now time.Time, limit int) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.Store.Prune(ctx, now, limit)
}

func TestSet_StaleUntilSynced(t *testing.T) {
	c, store := &clock{noon()}, &faulty{Store: memory.NewRevocations()}
	s := revocation.NewSet(store, time.Minute, c.now)
	if !s.Stale() {
		t.Error("a set that was never read is trusted")
	}
	if _, err := s.Revoke(t.Context(), keyRecord("key_1")); err != nil || !s.Stale() {
		t.Errorf("a revocation made the set fresh: %v", err)
	}
	store.err = errors.New("no")
	if err := s.Sync(t.Context()); err == nil || !s.Stale() {
		t.Errorf("a read that failed made the set fresh: %v", err)
	}
	store.err = nil
	if err := s.Sync(t.Context()); err != nil || s.Stale() || s.Age() != 0 {
		t.Errorf("after a read: stale %v, age %v, %v", s.Stale(), s.Age(), err)
	}
	c.t = c.t.Add(time.Minute)
	if s.Stale() || s.Age() != time.Minute {
		t.Error("stale before its time")
	}
	c.t = c.t.Add(1)
	if !s.Stale() {
		t.Error("not stale in time")
	}
	store.err = errors.New("no")
	if err := s.Sync(t.Context()); err == nil || !s.Stale() || !s.Key("key_1") {
		t.Errorf("after a read that failed: %v", err)
	}
}

func TestSet_RevokeTakesEffectAtOnce(t *testing.T) {
	store := &faulty{Store: memory.NewRevocations()}
	s := revocation.NewSet(store, time.Minute, noon)
	if s.Key("key_1") || s.Account("acme", noon()) || s.Len() != 0 {
		t.Error("an empty set revokes")
	}
	stored, err := s.Revoke(t.Context(), keyRecord("key_1"))
	if err != nil || stored.Revision == 0 || !s.Key("key_1") || s.Key("key_2") || s.Account("key_1", noon()) {
		t.Errorf("%+v, %v", stored, err)
	}
	if _, err := s.Revoke(t.Context(), accountRecord("acme", noon())); err != nil {
		t.Fatal(err)
	}
	if !s.Account("acme", noon()) || !s.Account("acme", noon().Add(-1)) || s.Account("acme", noon().Add(1)) || s.Account("other", noon()) || s.Key("acme") {
		t.Error("an account is cut off for what was issued until then, and for nothing else")
	}
	if !s.Account("acme", time.Time{}) {
		t.Error("what was issued at an unknown time is trusted")
	}
	// A later instant reaches further, and an earlier one does not undo that.
	for _, before := range []time.Duration{time.Hour, -time.Hour} {
		if _, err := s.Revoke(t.Context(), accountRecord("acme", noon().Add(before))); err != nil {
			t.Fatal(err)
		}
		if !s.Account("acme", noon().Add(time.Hour)) || s.Len() != 2 {
			t.Errorf("after a record for %v", before)
		}
	}
	if _, err := s.Revoke(t.Context(), keyRecord("")); authz.KindOf(err) != authz.KindInvalid {
		t.Errorf("a record that matches nothing: %v", err)
	}
	store.err = authz.Errorf(authz.KindUnavailable, "no")
	if _, err := s.Revoke(t.Context(), keyRecord("key_9")); !errors.Is(err, store.err) || s.Key("key_9") {
		t.Errorf("a store that fails: %v", err)
	}
}

func TestSet_SyncReadsAllPages(t *testing.T) {
	store := memory.NewRevocations()
	const n = 25_000
	for i := range n {
		if _, err := store.Add(t.Context(), keyRecord(fmt.Sprint("key_", i))); err != nil {
			t.Fatal(err)
		}
	}
	s := revocation.NewSet(store, time.Minute, noon)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Len() != n || s.Revision() != n || !s.Key("key_0") || !s.Key(fmt.Sprint("key_", n-1)) {
		t.Errorf("%d records up to %d", s.Len(), s.Revision())
	}
	if _, err := store.Add(t.Context(), keyRecord("new")); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil || !s.Key("new") || s.Len() != n+1 {
		t.Errorf("what is new: %v", err)
	}
}

// TestSet_ReadersSeeAcknowledgedRecords revokes, syncs and reads at once.
func TestSet_ReadersSeeAcknowledgedRecords(t *testing.T) {
	s := revocation.NewSet(memory.NewRevocations(), time.Minute, noon)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 50 {
				id := fmt.Sprintf("%d-%d", worker, i)
				if worker%2 == 0 {
					if err := s.Sync(t.Context()); err != nil {
						t.Error(err)
					}
					_ = s.Stale()
					continue
				}
				if _, err := s.Revoke(t.Context(), keyRecord(id)); err != nil || !s.Key(id) {
					t.Errorf("%s: %v", id, err)
				}
				before := noon().Add(time.Duration(i) * time.Hour)
				if _, err := s.Revoke(t.Context(), accountRecord("acme", before)); err != nil || !s.Account("acme", before) {
					t.Errorf("%s: %v", id, err)
				}
			}
		})
	}
	wg.Wait()
	if s.Len() != 4*50+1 {
		t.Errorf("%d records", s.Len())
	}
}

// TestSet_ReadersWhileItGrowsAndShrinks reads records that stay while others come and go, so that every shard grows and shrinks.
func TestSet_ReadersWhileItGrowsAndShrinks(t *testing.T) {
	c := &clock{noon()}
	s := revocation.NewSet(memory.NewRevocations(), time.Minute, c.now)
	const stay = 300
	for i := range stay {
		revoke(t, s, keyRecord(fmt.Sprint("stays-", i)))
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				if id := fmt.Sprint("stays-", i%stay); !s.Key(id) {
					t.Errorf("%s is trusted", id)
					return
				}
				if id := fmt.Sprint("never-", i%stay); s.Key(id) {
					t.Errorf("%s was never revoked", id)
					return
				}
			}
		})
	}
	for round := range 3 {
		for i := range 10_000 {
			id := fmt.Sprint(round, "-", i)
			if revoke(t, s, expiring(id, c.t.Add(time.Minute))); !s.Key(id) {
				t.Fatalf("%s was acknowledged and is trusted", id)
			}
		}
		if s.Len() != stay+10_000 {
			t.Fatalf("%d records", s.Len())
		}
		c.t = c.t.Add(time.Hour)
		if err := s.Prune(t.Context()); err != nil || s.Len() != stay {
			t.Fatalf("%d records are left, %v", s.Len(), err)
		}
	}
	close(done)
	readers.Wait()
}

// A store that went back is read again from the first record. If it says so each time, as when two servers answer in turn, the set
// is not complete.
func TestSet_StoreWentBack(t *testing.T) {
	c, store := &clock{noon()}, &faulty{Store: memory.NewRevocations()}
	s := revocation.NewSet(store, time.Minute, c.now)
	if _, err := s.Revoke(t.Context(), accountRecord("acme", noon())); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.t = c.t.Add(time.Hour)
	store.err = revocation.ErrWentBack
	if err := s.Sync(t.Context()); !errors.Is(err, revocation.ErrWentBack) || !s.Stale() || !s.Account("acme", noon()) {
		t.Errorf("the store went back twice: %v", err)
	}
	other := &faulty{Store: memory.NewRevocations()} // of another history
	if _, err := other.Store.Add(t.Context(), accountRecord("acme", noon().Add(-time.Hour))); err != nil {
		t.Fatal(err)
	}
	store.Store, store.err = other.Store, nil
	if err := s.Sync(t.Context()); err != nil || s.Stale() || s.Len() != 1 || !s.Account("acme", noon()) {
		t.Errorf("a narrower record took the place of one that was acknowledged: %v", err)
	}
	if _, err := s.Revoke(t.Context(), accountRecord("acme", noon().Add(time.Hour))); err != nil || !s.Account("acme", noon().Add(time.Hour)) {
		t.Errorf("a later record of the new history: %v", err)
	}
}
