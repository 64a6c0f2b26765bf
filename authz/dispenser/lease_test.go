package dispenser_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

func TestDispenser_ManyWaitersMakeOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &flaky{Ledger: memory.NewLedger(time.Now)}
		d := dispenser.New(&slow{ledger}, "n", time.Now)
		limit := daily(1_000_000)
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if r, _ := reserve(t, d, authz.Charge{"daily": 1}, limit); r == nil {
					t.Error("refused")
				}
			})
		}
		wg.Wait()
		if n := ledger.calls.Load(); n > 3 {
			t.Errorf("1000 reservations of a cold bucket made %d calls", n)
		}
		_ = d.Close(t.Context())
	})
}

// TestDispenser_ColdKeyWaitsForOneCall has a key with several limits that was not used for long: the ledger is asked for all at once.
func TestDispenser_ColdKeyWaitsForOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dispenser.New(&slow{memory.NewLedger(time.Now)}, "n", time.Now)
		second, third := daily(50), daily(50)
		second.Name, third.Name = "second", "third"
		limits := []authz.Limit{daily(50), second, third}
		began, facts := time.Now(), make([]authz.QuotaFact, len(limits))
		d.Peek(t.Context(), acme, limits, facts)
		if r, facts := reserve(t, d, authz.Charge{"daily": 1, "second": 1, "third": 1}, limits...); r == nil {
			t.Fatalf("refused: %+v", facts)
		}
		if took := time.Since(began); took != slowCall {
			t.Errorf("three limits took %v, want %v as one would", took, slowCall)
		}
		_ = d.Close(t.Context())
	})
}

// TestDispenser_RecallsBeforeItRefuses has one node need the units that another holds. A node that is closed is asked no
// more.
func TestDispenser_RecallsBeforeItRefuses(t *testing.T) {
	eachStore(t, func(t *testing.T, ledger quota.Ledger) {
		a, b, c := dispenser.New(ledger, "a", time.Now), dispenser.New(ledger, "b", time.Now), dispenser.New(ledger, "c", time.Now)
		limit := daily(100)
		takeSome(t, a, limit, 1)
		takeSome(t, c, limit, 1)
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := takeAll(t, b, limit); got != 98 {
			t.Errorf("%d units to be had, want the 98 that are left", got)
		}
		balance(t, ledger, limit, a, b)
	})
}

func TestDispenser_NextPeriodIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := memory.NewLedger(time.Now)
		d := dispenser.New(ledger, "n", time.Now)
		limit := authz.Limit{Name: "daily", Units: 2, Window: authz.WindowMinute, Per: authz.PerAccount}
		for minute := range 3 {
			for i := range 4 {
				if r, facts := reserve(t, d, authz.Charge{"daily": 1}, limit); (r != nil) != (i < 2) {
					t.Fatalf("minute %d, reservation %d: %v %+v", minute, i, r, facts)
				}
			}
			time.Sleep(time.Minute)
		}
	})
}

// TestDispenser_PeriodEndReturnsTheLease has a lease outlive its period: the units that are left go back to that period.
func TestDispenser_PeriodEndReturnsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := memory.NewLedger(time.Now)
		spy := &returns{Ledger: ledger}
		d := dispenser.New(spy, "n", time.Now)
		limit := authz.Limit{Name: "daily", Units: 300, Window: authz.WindowHour, Per: authz.PerAccount}
		time.Sleep(time.Hour / 2)
		reserve(t, d, authz.Charge{"daily": 1}, limit)
		time.Sleep(time.Hour / 2)
		reserve(t, d, authz.Charge{"daily": 1}, limit)
		synctest.Wait()
		if n := spy.units.Load(); n == 0 {
			t.Error("nothing was returned at the end of the period")
		}
		balance(t, ledger, limit, d)
		if err := d.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// returns is a ledger that counts the units that are returned.
type returns struct {
	quota.Ledger
	units atomic.Int64
}

func (r *returns) Lease(ctx context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	for _, q := range rs {
		for _, p := range q.Parts {
			r.units.Add(p.Back)
		}
	}
	return r.Ledger.Lease(ctx, rs)
}

// TestDispenser_LostCallsNeverOverGrant has calls to the ledger lost on their way there or back.
func TestDispenser_LostCallsNeverOverGrant(t *testing.T) {
	ledger := &flaky{Ledger: memory.NewLedger(time.Now)}
	ledger.loses.Store(2)
	limit := daily(500)
	ds := []*dispenser.Dispenser{dispenser.New(ledger, "a", time.Now), dispenser.New(ledger, "b", time.Now)}
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for i := range 4000 {
		wg.Go(func() {
			if r, _ := reserve(t, ds[i%2], authz.Charge{"daily": 1}, limit); r != nil {
				admitted.Add(1)
			}
		})
		if i%500 == 0 {
			wg.Go(func() { ds[i%2].Sweep(t.Context()) })
		}
	}
	wg.Wait()
	ledger.loses.Store(0)
	got := balance(t, ledger, limit, ds...)
	if admitted.Load() > 500 || got.Spent != admitted.Load() || got.Overage != 0 {
		t.Errorf("admitted %d of 500, ledger says %+v", admitted.Load(), got)
	}
}

// TestDispenser_LedgerDown serves from leases while the ledger is out of reach, until the session of the node is over.
func TestDispenser_LedgerDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &flaky{Ledger: memory.NewLedger(time.Now)}
		d := dispenser.New(ledger, "n", time.Now)
		limit := daily(1_000_000)
		reserve(t, d, authz.Charge{"daily": 1}, limit)
		ledger.down.Store(true)
		served := 0
		for range 100_000 {
			r, facts := reserve(t, d, authz.Charge{"daily": 1}, limit)
			if r == nil {
				if facts[0].State != authz.QuotaUnavailable {
					t.Fatalf("state %q, want unavailable", facts[0].State)
				}
				break
			}
			served++
		}
		if served == 0 || served == 100_000 {
			t.Errorf("served %d from the lease", served)
		}
		// After the session the ledger counts its units as stranded.
		ledger.down.Store(false)
		reserve(t, d, authz.Charge{"daily": 1}, limit)
		ledger.down.Store(true)
		time.Sleep(quota.SessionTerm)
		if r, _ := reserve(t, d, authz.Charge{"daily": 1}, limit); r != nil {
			t.Error("served without a session")
		}
		ledger.down.Store(false)
		if r, facts := reserve(t, d, authz.Charge{"daily": 1}, limit); r == nil {
			t.Errorf("does not recover: %+v", facts)
		}
		_ = d.Close(t.Context())
	})
}

// TestDispenser_TermCountsFromTheFirstSending has an answer lost, and the repetition get through after the session of its first
// sending: the ledger has given the units to another node by then.
func TestDispenser_TermCountsFromTheFirstSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := memory.NewLedger(time.Now)
		a := &flaky{Ledger: ledger}
		limit := authz.Limit{Name: "credits", Units: 32, Window: authz.WindowNone, Per: authz.PerAccount, RefundOnCrash: true}
		da, db := dispenser.New(a, "a", time.Now), dispenser.New(ledger, "b", time.Now)
		served := 0
		take := func(d *dispenser.Dispenser, n int) {
			for range n {
				if r, _ := reserve(t, d, authz.Charge{"credits": 1}, limit); r != nil {
					served++
				}
			}
		}
		a.loses.Store(1)
		take(da, 1)
		a.loses.Store(0)
		time.Sleep(quota.SessionTerm + time.Second)
		take(db, 40)
		take(da, 40)
		if served > 32 {
			t.Errorf("%d of 32 served", served)
		}
		_, _ = da.Close(t.Context()), db.Close(t.Context())
	})
}

// TestDispenser_RefusedLease has the units that a refused request reported reported again by the next.
func TestDispenser_RefusedLease(t *testing.T) {
	ledger := memory.NewLedger(time.Now)
	d := dispenser.New(&refusing{Ledger: ledger}, "n", time.Now)
	limit := daily(1000)
	var served int64
	for range 2000 {
		if r, _ := reserve(t, d, authz.Charge{"daily": 1}, limit); r != nil {
			served++
		}
	}
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := balance(t, ledger, limit); served != 1000 || got.Spent != 1000 || got.Overage != 0 {
		t.Errorf("%d served, %+v", served, got)
	}
}

// refusing is a ledger that refuses every third lease as invalid.
type refusing struct {
	quota.Ledger
	calls atomic.Int64
}

func (r *refusing) Lease(ctx context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	if r.calls.Add(1)%3 == 0 {
		return []quota.Answer{{Err: authz.Errorf(authz.KindInvalid, "for no good reason")}}, nil
	}
	return r.Ledger.Lease(ctx, rs)
}
