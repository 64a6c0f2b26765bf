package dispenser_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
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

var acme = authz.Holder{Key: "key_1", Account: "acme"}

func daily(units int64) authz.Limit {
	return authz.Limit{Name: "daily", Units: units, Unit: authz.UnitRequests, Window: authz.WindowDay, Per: authz.PerAccount}
}

// counted is the limit as ParsePlans would make it.
func counted(t testing.TB, l authz.Limit) authz.Limit {
	t.Helper()
	plans, err := quota.ParsePlans(map[string]any{"p": map[string]any{"limits": map[string]any{
		l.Name: map[string]any{"units": l.Units, "window": l.Window, "per": l.Per, "unit": l.Unit},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return plans["p"][0]
}

func credits() authz.Limit {
	return authz.Limit{Name: "credits", Unit: authz.UnitRequests, Window: authz.WindowNone, Per: authz.PerAccount}
}

// balance is what the ledger says once every node has reported. Its invariant is checked on the way.
func balance(t *testing.T, l quota.Ledger, limit authz.Limit, nodes ...*dispenser.Dispenser) quota.Balance {
	t.Helper()
	b := quota.BucketOf(&limit, acme)
	for _, d := range nodes {
		if err := d.Report(t.Context(), b, &limit); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.Balance(t.Context(), b, limit)
	if err != nil {
		t.Fatal(err)
	}
	held := got.Stranded
	for _, n := range got.Outstanding {
		held += n
	}
	if got.Granted != got.Spent+got.Returned+held {
		t.Errorf("granted %d is not spent %d + returned %d + held %d", got.Granted, got.Spent, got.Returned, held)
	}
	if got.Granted-got.Returned > got.Allowance+got.Forgiven {
		t.Errorf("over-granted: %+v", got)
	}
	return got
}

// reserve returns nil if there was too little.
func reserve(t *testing.T, d *dispenser.Dispenser, c authz.Charge, limits ...authz.Limit) (*authz.Reservation, []authz.QuotaFact) {
	t.Helper()
	r, facts := new(authz.Reservation), make([]authz.QuotaFact, len(limits))
	if !d.Reserve(t.Context(), acme, limits, c, facts, r) {
		return nil, facts
	}
	return r, facts
}

func TestDispenser_ConcurrentReservationsAreExact(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			eachStore(t, func(t *testing.T, ledger quota.Ledger) { concurrentReservations(t, ledger, nodes) })
		})
	}
}

func concurrentReservations(t *testing.T, ledger quota.Ledger, nodes int) {
	limit := daily(1000)
	var ds []*dispenser.Dispenser
	for n := range nodes {
		ds = append(ds, dispenser.New(ledger, quota.NodeID(fmt.Sprint(n)), time.Now))
	}
	var admitted, refused atomic.Int64
	var wg sync.WaitGroup
	for i := range 2000 {
		wg.Go(func() {
			if r, _ := reserve(t, ds[i%nodes], authz.Charge{"daily": 1}, limit); r != nil {
				admitted.Add(1)
			} else {
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	got := balance(t, ledger, limit, ds...)
	if nodes == 1 && admitted.Load() != 1000 {
		t.Errorf("admitted %d, want exactly 1000", admitted.Load())
	}
	if admitted.Load() > 1000 || got.Spent != admitted.Load() {
		t.Errorf("admitted %d, refused %d, ledger says %+v", admitted.Load(), refused.Load(), got)
	}
}

func TestAllLimitsOrNone(t *testing.T) {
	ledger := memory.NewLedger(time.Now)
	d := dispenser.New(ledger, "n", time.Now)
	wide, narrow := daily(100), authz.Limit{Name: "minute", Units: 3, Window: authz.WindowMonth, Per: authz.PerAccount}
	for i := range 10 {
		r, facts := reserve(t, d, authz.Charge{"daily": 1, "minute": 1}, wide, narrow)
		if (r != nil) != (i < 3) {
			t.Fatalf("reservation %d: %v, facts %+v", i, r, facts)
		}
		if i >= 3 && (facts[1].State != authz.QuotaExhausted || facts[0].State != authz.QuotaOK) {
			t.Fatalf("facts do not name the limit that denied: %+v", facts)
		}
	}
	if got := balance(t, ledger, wide, d); got.Spent != 3 {
		t.Errorf("the wide limit was charged %d, want 3: a denied request costs nothing", got.Spent)
	}
	if got := balance(t, ledger, narrow, d); got.Spent != 3 {
		t.Errorf("the narrow limit was charged %d, want 3", got.Spent)
	}
}

func TestInsufficientIsNotExhausted(t *testing.T) {
	d := dispenser.New(memory.NewLedger(time.Now), "n", time.Now)
	limit := daily(10)
	if r, _ := reserve(t, d, authz.Charge{"daily": 7}, limit); r == nil {
		t.Fatal("7 of 10 refused")
	}
	r, facts := reserve(t, d, authz.Charge{"daily": 5}, limit)
	if r != nil || facts[0].State != authz.QuotaInsufficient || facts[0].Remaining != 3 {
		t.Errorf("5 of the remaining 3: %v, %+v", r, facts)
	}
	if r, facts := reserve(t, d, authz.Charge{"daily": 3}, limit); r == nil {
		t.Errorf("the last 3 refused: %+v", facts)
	}
}

func TestCancelGivesBack(t *testing.T) {
	ledger := memory.NewLedger(time.Now)
	d := dispenser.New(ledger, "n", time.Now)
	limit := daily(5)
	r, _ := reserve(t, d, authz.Charge{"daily": 5}, limit)
	if r == nil {
		t.Fatal("refused")
	}
	r.Cancel()
	r.Cancel()
	if got := balance(t, ledger, limit, d); got.Spent != 0 {
		t.Errorf("spent %d after a cancel", got.Spent)
	}
	// Once the ledger knows the units as spent, they are refunded there.
	r, _ = reserve(t, d, authz.Charge{"daily": 5}, limit)
	if got := balance(t, ledger, limit, d); got.Spent != 5 {
		t.Fatalf("spent %d, want 5", got.Spent)
	}
	r.Cancel()
	if err := d.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := balance(t, ledger, limit); got.Spent != 0 || got.Free != 5 {
		t.Errorf("after a late cancel: %+v", got)
	}
}

func TestCloseReturnsLeases(t *testing.T) {
	ledger := memory.NewLedger(time.Now)
	d := dispenser.New(ledger, "n", time.Now)
	limit := daily(1000)
	reserve(t, d, authz.Charge{"daily": 1}, limit)
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := balance(t, ledger, limit); got.Spent != 1 || got.Free != 999 || len(got.Outstanding) != 0 {
		t.Errorf("after close: %+v", got)
	}
}

func TestCreditIsSeenAfterReport(t *testing.T) {
	ledger := memory.NewLedger(time.Now)
	d := dispenser.New(ledger, "n", time.Now)
	limit := credits()
	if r, facts := reserve(t, d, authz.Charge{"credits": 1}, limit); r != nil || facts[0].State != authz.QuotaExhausted {
		t.Fatalf("credits out of nothing: %+v", facts)
	}
	b := quota.BucketOf(&limit, acme)
	if _, err := ledger.Credit(t.Context(), quota.CreditRequest{ID: "c1", Bucket: b, Limit: limit, Units: 2}); err != nil {
		t.Fatal(err)
	}
	if err := d.Report(t.Context(), b, &limit); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if r, facts := reserve(t, d, authz.Charge{"credits": 1}, limit); (r != nil) != (i < 2) {
			t.Fatalf("reservation %d of 2 credits: %v %+v", i, r, facts)
		}
	}
}

func TestNextPeriodIsFresh(t *testing.T) {
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

// flaky is a ledger whose answers are lost, and which can be out of reach. What was asked may have happened all the same.
type flaky struct {
	quota.Ledger
	down  atomic.Bool
	loses atomic.Int64 // every how many answers one is lost; 0 none
	calls atomic.Int64
}

var errLost = errors.New("the answer was lost")

func (f *flaky) Lease(ctx context.Context, r quota.LeaseRequest) (quota.Lease, error) {
	f.calls.Add(1)
	if f.down.Load() {
		return quota.Lease{}, errLost
	}
	lease, err := f.Ledger.Lease(ctx, r)
	if n := f.loses.Load(); n > 0 && rand.Int64N(n) == 0 {
		return quota.Lease{}, errLost
	}
	return lease, err
}

func (f *flaky) Return(ctx context.Context, r quota.ReturnRequest) error {
	f.calls.Add(1)
	if f.down.Load() {
		return errLost
	}
	err := f.Ledger.Return(ctx, r)
	if n := f.loses.Load(); n > 0 && rand.Int64N(n) == 0 {
		return errLost
	}
	return err
}

func TestLostAnswersNeverOverGrant(t *testing.T) {
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

func TestLeasesInHandAreServedWhileTheLedgerIsDown(t *testing.T) {
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
			t.Errorf("served %d from the lease in hand", served)
		}
		// Not even units in hand are served once the term of the lease is over: the ledger counts them as stranded.
		ledger.down.Store(false)
		reserve(t, d, authz.Charge{"daily": 1}, limit)
		ledger.down.Store(true)
		time.Sleep(quota.LeaseTerm)
		if r, _ := reserve(t, d, authz.Charge{"daily": 1}, limit); r != nil {
			t.Error("served from a lease that ran out")
		}
		ledger.down.Store(false)
		if r, facts := reserve(t, d, authz.Charge{"daily": 1}, limit); r == nil {
			t.Errorf("does not recover: %+v", facts)
		}
		_ = d.Close(t.Context())
	})
}

func TestSweepReturnsIdleLeases(t *testing.T) {
	ledger := memory.NewLedger(time.Now)
	d := dispenser.New(ledger, "n", time.Now)
	limit := daily(1000)
	reserve(t, d, authz.Charge{"daily": 1}, limit)
	d.Sweep(t.Context())
	b := quota.BucketOf(&limit, acme)
	if got, _ := ledger.Balance(t.Context(), b, limit); got.Outstanding["n"] == 0 {
		t.Errorf("a lease in use was given back: %+v", got)
	}
	d.Sweep(t.Context())
	if got, _ := ledger.Balance(t.Context(), b, limit); got.Free != 999 || len(got.Outstanding) != 0 {
		t.Errorf("an idle lease was kept: %+v", got)
	}
	if r, facts := reserve(t, d, authz.Charge{"daily": 1}, limit); r == nil {
		t.Errorf("a bucket does not come back after it was swept: %+v", facts)
	}
}

func TestManyWaitersMakeOneCall(t *testing.T) {
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

// slow answers after a moment, in which everybody else arrives.
type slow struct{ *flaky }

const slowCall = time.Millisecond

func (s *slow) Lease(ctx context.Context, r quota.LeaseRequest) (quota.Lease, error) {
	time.Sleep(slowCall)
	return s.flaky.Lease(ctx, r)
}

// TestEveryDenialIsRefunded has limits of which the second is used up while the ledger hears of everything at once, so
// that what was taken of the first has to be given back there, each time anew.
func TestEveryDenialIsRefunded(t *testing.T) {
	ledger := memory.NewLedger(time.Now)
	d := dispenser.New(ledger, "n", time.Now)
	wide, narrow := daily(100), authz.Limit{Name: "minute", Units: 2, Window: authz.WindowMonth, Per: authz.PerAccount}
	bucket := quota.BucketOf(&wide, acme)
	reporting := &reportsOnLease{Ledger: ledger, report: func() { _ = d.Report(context.Background(), bucket, &wide) }}
	d2 := dispenser.New(reporting, "m", time.Now)
	var wg sync.WaitGroup
	var admitted atomic.Int64
	for range 50 {
		wg.Go(func() {
			for _, x := range []*dispenser.Dispenser{d, d2} {
				if r, _ := reserve(t, x, authz.Charge{"daily": 1, "minute": 1}, wide, narrow); r != nil {
					admitted.Add(1)
				}
				_ = x.Report(t.Context(), bucket, &wide)
			}
		})
	}
	wg.Wait()
	for _, x := range []*dispenser.Dispenser{d, d2} {
		if err := x.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if got := balance(t, ledger, wide); got.Spent != admitted.Load() {
		t.Errorf("admitted %d, charged %d", admitted.Load(), got.Spent)
	}
}

// reportsOnLease has another node report whenever a lease is asked for.
type reportsOnLease struct {
	quota.Ledger
	report func()
}

func (r *reportsOnLease) Lease(ctx context.Context, req quota.LeaseRequest) (quota.Lease, error) {
	r.report()
	return r.Ledger.Lease(ctx, req)
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

// TestPeriodEndReturnsTheLease has a lease that outlives its period: what is left of it goes back on the period's page.
func TestPeriodEndReturnsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := memory.NewLedger(time.Now)
		spy := &returns{Ledger: ledger}
		d := dispenser.New(spy, "n", time.Now)
		limit := authz.Limit{Name: "daily", Units: 100, Window: authz.WindowMinute, Per: authz.PerAccount}
		reserve(t, d, authz.Charge{"daily": 1}, limit)
		time.Sleep(time.Minute)
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

// returns counts the units that are given back.
type returns struct {
	quota.Ledger
	units atomic.Int64
}

func (r *returns) Return(ctx context.Context, req quota.ReturnRequest) error {
	r.units.Add(req.Units)
	return r.Ledger.Return(ctx, req)
}

// BenchmarkReserve is a reservation from units in hand: of one key by all processors, and of many keys.
func BenchmarkReserve(b *testing.B) {
	limits := []authz.Limit{counted(b, daily(quota.MaxUnits/2))}
	charge := authz.Charge{"daily": 1}
	for _, keys := range []int{1, 1_000_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			d := dispenser.New(memory.NewLedger(time.Now), "n", time.Now)
			holders := make([]authz.Holder, keys)
			var (
				r     authz.Reservation
				facts [1]authz.QuotaFact
				next  atomic.Int64
			)
			for i := range holders {
				holders[i] = authz.Holder{Key: "k", Account: fmt.Sprintf("account-%d", i)}
				d.Reserve(b.Context(), holders[i], limits, charge, facts[:], &r)
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				var (
					r     authz.Reservation
					facts [1]authz.QuotaFact
				)
				for i := next.Add(int64(keys) / 7); pb.Next(); i++ {
					if !d.Reserve(b.Context(), holders[int(i)%keys], limits, charge, facts[:], &r) {
						b.Error("refused")
						return
					}
				}
			})
		})
	}
}

// TestReservingNeedsNoMemory holds that a reservation from units in hand allocates nothing.
func TestReservingNeedsNoMemory(t *testing.T) {
	d := dispenser.New(memory.NewLedger(time.Now), "n", time.Now)
	limits, charge := []authz.Limit{counted(t, daily(quota.MaxUnits/2)), counted(t, credits())}, authz.Charge{"daily": 1}
	var r authz.Reservation
	facts := make([]authz.QuotaFact, len(limits))
	d.Reserve(t.Context(), acme, limits, authz.Charge{"daily": 1000}, facts, &r)
	n := testing.AllocsPerRun(50, func() {
		d.Peek(t.Context(), acme, limits, facts)
		if !d.Reserve(t.Context(), acme, limits, charge, facts, &r) {
			t.Fatalf("refused: %+v", facts)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestAColdKeyWaitsForOneCall has a key with several limits that nobody has used for long: they are asked for at once.
func TestAColdKeyWaitsForOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dispenser.New(&slow{&flaky{Ledger: memory.NewLedger(time.Now)}}, "n", time.Now)
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

// TestIdleKeysAreForgotten uses very many keys once each: when they are idle, their leases go back, and so does memory.
func TestIdleKeysAreForgotten(t *testing.T) {
	const keys = 200_000
	ledger := &counting{Ledger: memory.NewLedger(time.Now)}
	d := dispenser.New(ledger, "n", time.Now)
	limits, facts := []authz.Limit{daily(1000)}, make([]authz.QuotaFact, 1)
	var r authz.Reservation
	before := heap()
	for i := range keys {
		if !d.Reserve(t.Context(), authz.Holder{Account: fmt.Sprint(i)}, limits, authz.Charge{"daily": 1}, facts, &r) {
			t.Fatalf("refused: %+v", facts)
		}
	}
	full := heap()
	d.Sweep(t.Context()) // they were used since the sweep before
	d.Sweep(t.Context())
	swept := heap()
	if held := ledger.held.Load(); held != 0 {
		t.Errorf("%d units are still leased", held)
	}
	each := (full - before) / keys
	t.Logf("%d bytes a key in use; %d keys swept: %d KiB are left", each, keys, (swept-before)>>10)
	if each > 2048 || swept-before > (full-before)/4 {
		t.Errorf("%d bytes a key, and %d of %d are left when all are idle", each, swept-before, full-before)
	}
	runtime.KeepAlive(d)
}

// heap is how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// counting is a ledger that grants everything and remembers only how much of it is out.
type counting struct {
	quota.Ledger
	held atomic.Int64
}

func (c *counting) Lease(_ context.Context, r quota.LeaseRequest) (quota.Lease, error) {
	c.held.Add(r.Want - r.Spent)
	return quota.Lease{Period: quota.PeriodAt(&r.Limit, time.Now()), Granted: r.Want, Held: r.Want, Counted: r.Want, Nodes: 1, Until: time.Hour}, nil
}

func (c *counting) Return(_ context.Context, r quota.ReturnRequest) error {
	c.held.Add(-r.Units - r.Spent)
	return nil
}

// TestATermCountsFromTheFirstSending has an answer that is lost, and a repetition that gets through after the term: the
// ledger has given the units to somebody else by then.
func TestATermCountsFromTheFirstSending(t *testing.T) {
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
		time.Sleep(quota.LeaseTerm + time.Second)
		take(db, 40)
		take(da, 40)
		if served > 32 {
			t.Errorf("%d of 32 served", served)
		}
		_, _ = da.Close(t.Context()), db.Close(t.Context())
	})
}

// TestRefundsAreRepeated has a ledger that is out of reach when a request is cancelled.
func TestRefundsAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := memory.NewLedger(time.Now)
		unsettling := &noSettle{Ledger: ledger}
		d := dispenser.New(unsettling, "n", time.Now)
		limit := daily(100)
		r, _ := reserve(t, d, authz.Charge{"daily": 10}, limit)
		if got := balance(t, ledger, limit, d); got.Spent != 10 {
			t.Fatalf("spent %d", got.Spent)
		}
		unsettling.down.Store(true)
		r.Cancel()
		synctest.Wait()
		unsettling.down.Store(false)
		if err := d.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := balance(t, ledger, limit); got.Spent != 0 || got.Free != 100 {
			t.Errorf("%+v", got)
		}
	})
}

type noSettle struct {
	quota.Ledger
	down atomic.Bool
}

func (n *noSettle) Settle(ctx context.Context, r quota.SettleRequest) (quota.Settlement, error) {
	if n.down.Load() {
		return quota.Settlement{}, errLost
	}
	return n.Ledger.Settle(ctx, r)
}
