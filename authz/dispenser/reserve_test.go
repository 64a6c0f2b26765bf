package dispenser_test

import (
	"context"
	"fmt"
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

func TestDispenser_AllLimitsOrNone(t *testing.T) {
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

func TestDispenser_InsufficientIsNotExhausted(t *testing.T) {
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

func TestReservation_CancelGivesBack(t *testing.T) {
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

// TestDispenser_EveryDenialIsRefunded has two limits of which the second is used up. The ledger hears at once of what was taken
// under the first, so each denial has to be refunded there.
func TestDispenser_EveryDenialIsRefunded(t *testing.T) {
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

// reportsOnLease is a ledger that has another node report at every lease.
type reportsOnLease struct {
	quota.Ledger
	report func()
}

func (r *reportsOnLease) Lease(ctx context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	r.report()
	return r.Ledger.Lease(ctx, rs)
}

// TestDispenser_RefundsAreRepeated cancels a request while the ledger is out of reach.
func TestDispenser_RefundsAreRepeated(t *testing.T) {
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

// noSettle is a ledger that settles nothing while it is down.
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

// TestDispenser_AbsurdCharges has requests for more than can be counted beside requests for one unit.
func TestDispenser_AbsurdCharges(t *testing.T) {
	for _, refund := range []bool{false, true} {
		ledger := memory.NewLedger(time.Now)
		d := dispenser.New(ledger, "n", time.Now)
		limit := credits()
		limit.RefundOnCrash = refund
		b := quota.BucketOf(&limit, acme)
		if _, err := ledger.Credit(t.Context(), quota.CreditRequest{ID: "c", Bucket: b, Limit: limit, Units: 1000}); err != nil {
			t.Fatal(err)
		}
		var served atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 200 {
					if r, _ := reserve(t, d, authz.Charge{"credits": 1}, limit); r != nil {
						served.Add(1)
					}
					if r, facts := reserve(t, d, authz.Charge{"credits": quota.MaxUnits}, limit); r != nil || facts[0].State == authz.QuotaUnavailable {
						t.Errorf("a charge of everything: %v, %+v", r, facts)
					}
				}
			})
		}
		wg.Wait()
		if err := d.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := balance(t, ledger, limit); served.Load() != 1000 || got.Spent != 1000 || got.Overage != 0 || got.Stranded != 0 {
			t.Errorf("refund %v: %d of 1000 served, %+v", refund, served.Load(), got)
		}
	}
}

// BenchmarkReserve reserves units that the node holds: of one key by all processors, and of many keys.
func BenchmarkReserve(b *testing.B) {
	limits := []authz.Limit{parsed(b, daily(quota.MaxUnits/2))}
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

func TestDispenser_ReserveAllocatesNothing(t *testing.T) {
	d := dispenser.New(memory.NewLedger(time.Now), "n", time.Now)
	limits, charge := []authz.Limit{parsed(t, daily(quota.MaxUnits/2)), parsed(t, credits())}, authz.Charge{"daily": 1}
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

// TestDispenser_Rate asks for the state of a rate before any check has come, as "quota show" may, and without the ledger.
func TestDispenser_Rate(t *testing.T) {
	l := authz.Limit{Name: "rate", Units: 60, Window: authz.WindowMinute, Per: authz.PerKey}
	ledger := &flaky{Ledger: memory.NewLedger(time.Now)}
	ledger.down.Store(true)
	d := dispenser.New(ledger, "n", time.Now)
	if f, err := d.Rate(t.Context(), acme, &l); err == nil {
		t.Errorf("without a session: %+v", f)
	}
	ledger.down.Store(false)
	if f, err := d.Rate(t.Context(), acme, &l); err != nil || f.Remaining != 60 || f.State != authz.QuotaOK {
		t.Errorf("at the start: %+v, %v", f, err)
	}
}

// TestDispenser_RateOfAnInterruptedRequest has a request that read the clock, was interrupted for more than a minute, and goes on when
// others have used up the next period.
func TestDispenser_RateOfAnInterruptedRequest(t *testing.T) {
	began := time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)
	now, late := began, false
	d := dispenser.New(memory.NewLedger(func() time.Time { return now }), "n", func() time.Time {
		if late {
			late = false
			return began
		}
		return now
	})
	l := authz.Limit{Name: "rate", Units: 3, Window: authz.WindowMinute, Per: authz.PerAccount}
	takeSome(t, d, l, 3)
	now = began.Add(2 * time.Minute)
	takeSome(t, d, l, 3)
	late = true
	if r, _ := reserve(t, d, authz.Charge{l.Name: 1}, l); r != nil {
		t.Error("a unit was taken from the period before the one that runs")
	}
	if n := takeAll(t, d, l); n != 0 {
		t.Errorf("%d more units were taken than the limit has", n)
	}
	now = began.Add(-5 * time.Minute)
	takeSome(t, d, l, 3) // the clock was wrong before
}
