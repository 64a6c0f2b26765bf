package revocation_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// life is how long a record lives at the most.
const life = 25 * time.Hour

// clockWorld is a store, the server that uses it now, and a clock that the test sets wrong.
type clockWorld struct {
	*testing.T
	store  *memory.Revocations
	set    *revocation.Set
	pruner *revocation.Pruner
	real   time.Duration // how much time went by
	wrong  time.Duration // how far the clock is off
}

func newClockWorld(t *testing.T) *clockWorld {
	h := &clockWorld{T: t, store: memory.NewRevocations()}
	h.start()
	return h
}

func (h *clockWorld) now() time.Time { return noon().Add(h.real + h.wrong) }

// start starts a server, which reads its clock at once.
func (h *clockWorld) start() {
	h.Helper()
	since := h.real
	h.set = revocation.NewSet(h.store, time.Hour, h.now)
	if err := h.set.Sync(h.Context()); err != nil {
		h.Fatal(err)
	}
	h.pruner = revocation.NewPruner(h.set, h.store, life, h.now, func() time.Duration { return h.real - since }, slog.New(slog.DiscardHandler))
	h.run(0)
}

// run lets time pass. The server prunes every minute.
func (h *clockWorld) run(d time.Duration) {
	h.Helper()
	for end := h.real + d; ; {
		if err := h.pruner.Prune(h.Context()); err != nil {
			h.Fatal(err)
		}
		if h.real >= end {
			return
		}
		h.real += min(time.Minute, end-h.real)
	}
}

func (h *clockWorld) want(records int, doubt bool) {
	h.Helper()
	if h.set.Len() != records || (h.pruner.Doubt() != "") != doubt {
		h.Errorf("%d records, doubt %q: want %d, doubt %v", h.set.Len(), h.pruner.Doubt(), records, doubt)
	}
}

// tenYears is an error of the clock.
const tenYears = 10 * 365 * 24 * time.Hour

func TestPruner_Ordinary(t *testing.T) {
	h := newClockWorld(t)
	revoke(t, h.set, expiring("a", h.now().Add(life)))
	h.run(life)
	h.want(1, false)
	h.run(2 * time.Minute)
	h.want(0, false)
}

// TestPruner_ClockJumps sets the clock wrong for a while and then right.
func TestPruner_ClockJumps(t *testing.T) {
	for name, jump := range map[string]time.Duration{"ahead": tenYears, "an hour": time.Hour, "back": -tenYears, "very far": 200 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			h := newClockWorld(t)
			revoke(t, h.set, expiring("a", h.now().Add(time.Hour)))
			h.run(10 * time.Minute)
			h.wrong = jump
			h.run(20 * time.Minute)
			h.want(1, true)
			h.wrong = 0
			h.run(time.Minute)
			h.want(1, false)
			h.run(time.Hour) // what expires in this hour is forgotten
			h.want(0, false)
		})
	}
}

// TestPruner_ClockStays sets the clock to another time for good: after the life of a record it is trusted.
func TestPruner_ClockStays(t *testing.T) {
	h := newClockWorld(t)
	revoke(t, h.set, expiring("a", h.now().Add(life)))
	h.run(time.Hour)
	h.wrong = tenYears
	h.run(life - time.Minute)
	h.want(1, true)
	h.wrong += time.Hour // it jumps again: the wait begins again
	h.run(life - time.Minute)
	h.want(1, true)
	h.run(2 * time.Minute)
	h.want(0, false)
}

// TestPruner_Restart starts a server with a wrong clock: no time went by that could show it.
func TestPruner_Restart(t *testing.T) {
	h := newClockWorld(t)
	revoke(t, h.set, expiring("a", h.now().Add(time.Hour)))
	h.run(10 * time.Minute)
	h.wrong = tenYears
	h.start()
	h.want(1, true)
	h.run(time.Hour)
	h.start()
	h.want(1, true)
	h.wrong = 0
	h.start()
	h.run(time.Minute)
	h.want(0, false)
}

// TestPruner_RestartsAddUp restarts a server several times within the life of a record: its clock is trusted in the end.
func TestPruner_RestartsAddUp(t *testing.T) {
	h := newClockWorld(t)
	revoke(t, h.set, expiring("a", h.now().Add(time.Hour)))
	h.real += 3 * 24 * time.Hour // it is stopped for some days: no reason for a warning
	for range 7 {
		h.start()
		h.want(1, false)
		h.run(4 * time.Hour)
		h.real += time.Minute
	}
	h.want(0, false)
}

// TestPruner_OlderStore has records of a version that did not store the clock.
func TestPruner_OlderStore(t *testing.T) {
	h := &clockWorld{T: t, store: memory.NewRevocations()}
	if _, err := h.store.Add(t.Context(), expiring("a", h.now().Add(-time.Hour))); err != nil {
		t.Fatal(err)
	}
	h.start()
	h.want(1, false)
	h.run(time.Hour)
	h.start()
	h.want(1, false)
	h.run(life)
	h.want(0, false)
}

// TestSet_TokenOfAClockAhead cuts off an account at an instant of our clock. Keys carry instants of that clock, and tokens do not.
func TestSet_TokenOfAClockAhead(t *testing.T) {
	s := revocation.NewSet(memory.NewRevocations(), time.Minute, noon)
	s.AllowSkew(30 * time.Second)
	revoke(t, s, accountRecord("acme", noon()))
	for after, revoked := range map[time.Duration]bool{0: true, 30 * time.Second: true, 31 * time.Second: false} {
		if got := s.Token(&authz.TokenFact{Issuer: issuer, Account: "acme", IssuedAt: noon().Add(after)}); got != revoked {
			t.Errorf("a token of %v later: revoked %v", after, got)
		}
	}
	if s.Account("acme", noon().Add(time.Second)) {
		t.Error("a key that was made later is revoked")
	}
}

// clocked is a store with a clock that is right.
type clocked struct {
	*memory.Revocations
	now func() time.Time
}

func (c clocked) Now(context.Context) (time.Time, error) { return c.now(), nil }

// Several nodes share a store, and the clock of one is wrong for so long that it is believed.
func TestPruner_StoreWithClock(t *testing.T) {
	h := newClockWorld(t)
	shared := clocked{h.store, func() time.Time { return noon().Add(h.real) }}
	h.pruner = revocation.NewPruner(h.set, shared, life, h.now, func() time.Duration { return h.real }, slog.New(slog.DiscardHandler))
	h.run(0)
	h.wrong = tenYears
	h.run(2 * life)
	h.want(0, false)
	r := keyRecord("key_1")
	r.ExpiresAt = noon().Add(h.real + time.Hour)
	if _, err := h.set.Revoke(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	h.run(50 * time.Minute)
	h.want(1, false)
	h.run(20 * time.Minute)
	h.want(0, false)
}
