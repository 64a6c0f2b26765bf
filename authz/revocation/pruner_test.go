package revocation_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// life is that of the records of a house.
const life = 25 * time.Hour

// house is a store whose servers come and go, with a clock that the test sets wrong.
type house struct {
	*testing.T
	store  *memory.Revocations
	set    *revocation.Set
	pruner *revocation.Pruner
	real   time.Duration // how much time went by
	wrong  time.Duration // how far the clock is off
}

func newHouse(t *testing.T) *house {
	h := &house{T: t, store: memory.NewRevocations()}
	h.start()
	return h
}

func (h *house) now() time.Time { return noon().Add(h.real + h.wrong) }

// start starts a server, which looks at its clock at once.
func (h *house) start() {
	h.Helper()
	since := h.real
	h.set = revocation.NewSet(h.store, time.Hour, h.now)
	if err := h.set.Sync(h.Context()); err != nil {
		h.Fatal(err)
	}
	h.pruner = revocation.NewPruner(h.set, h.store, life, h.now, func() time.Duration { return h.real - since }, slog.New(slog.DiscardHandler))
	h.run(0)
}

// run lets time pass, in which the server looks every minute.
func (h *house) run(d time.Duration) {
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

func (h *house) want(records int, doubt bool) {
	h.Helper()
	if h.set.Len() != records || (h.pruner.Doubt() != "") != doubt {
		h.Errorf("%d records, doubt %q: want %d, doubt %v", h.set.Len(), h.pruner.Doubt(), records, doubt)
	}
}

// tenYears is how far a clock goes wrong.
const tenYears = 10 * 365 * 24 * time.Hour

func TestPruner_Ordinary(t *testing.T) {
	h := newHouse(t)
	revoke(t, h.set, expiring("a", h.now().Add(life)))
	h.run(life)
	h.want(1, false)
	h.run(2 * time.Minute)
	h.want(0, false)
}

// TestPruner_ClockJumps has the clock go wrong for a while and come back.
func TestPruner_ClockJumps(t *testing.T) {
	for name, jump := range map[string]time.Duration{"ahead": tenYears, "an hour": time.Hour, "back": -tenYears, "very far": 200 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			revoke(t, h.set, expiring("a", h.now().Add(time.Hour)))
			h.run(10 * time.Minute)
			h.wrong = jump
			h.run(20 * time.Minute)
			h.want(1, true)
			h.wrong = 0
			h.run(time.Minute)
			h.want(1, false)
			h.run(time.Hour) // and what has expired then is forgotten
			h.want(0, false)
		})
	}
}

// TestPruner_ClockStays has a clock that was wrong and is set right, for good. Nothing has to be mended by hand.
func TestPruner_ClockStays(t *testing.T) {
	h := newHouse(t)
	revoke(t, h.set, expiring("a", h.now().Add(life)))
	h.run(time.Hour)
	h.wrong = tenYears
	h.run(life - time.Minute)
	h.want(1, true)
	h.wrong += time.Hour // it jumps again: it has to begin anew
	h.run(life - time.Minute)
	h.want(1, true)
	h.run(2 * time.Minute)
	h.want(0, false)
}

// TestPruner_Restart has a server start with a wrong clock, which no time that went by can show.
func TestPruner_Restart(t *testing.T) {
	h := newHouse(t)
	revoke(t, h.set, expiring("a", h.now().Add(time.Hour)))
	h.run(10 * time.Minute)
	h.wrong = tenYears
	h.start()
	h.want(1, true)
	h.run(time.Hour)
	h.start() // once more
	h.want(1, true)
	h.wrong = 0
	h.start()
	h.run(time.Minute)
	h.want(0, false)
}

// TestPruner_RestartsAddUp has a server that is restarted more often than a record lives: its clock proves itself all the
// same.
func TestPruner_RestartsAddUp(t *testing.T) {
	h := newHouse(t)
	revoke(t, h.set, expiring("a", h.now().Add(time.Hour)))
	h.real += 3 * 24 * time.Hour // it is stopped for some days, which is nothing to be told of
	for range 7 {
		h.start()
		h.want(1, false)
		h.run(4 * time.Hour)
		h.real += time.Minute
	}
	h.want(0, false)
}

// TestPruner_OlderStore has records of a version that did not write the clock down.
func TestPruner_OlderStore(t *testing.T) {
	h := &house{T: t, store: memory.NewRevocations()}
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

// TestSet_TokenOfAClockAhead cuts off an account by our clock. Keys are made by it, and tokens are not.
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
