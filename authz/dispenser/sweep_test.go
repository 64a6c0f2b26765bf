package dispenser_test

import (
	"context"
	"fmt"
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

func TestDispenser_ReportShowsCredits(t *testing.T) {
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

// sweepFor has the dispenser swept as the server does.
func sweepFor(d *dispenser.Dispenser, t *testing.T, long time.Duration) {
	for range long / dispenser.SweepEvery {
		time.Sleep(dispenser.SweepEvery)
		d.Sweep(t.Context())
	}
}

// TestDispenser_IdleLeaseIsKept has a caller come again after minutes: the ledger is not asked, neither when the lease is put
// away nor when it is used again. A caller who does not come for long costs one more call, together with others.
func TestDispenser_IdleLeaseIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &flaky{Ledger: memory.NewLedger(time.Now)}
		d := dispenser.New(ledger, "n", time.Now)
		limit, minute := daily(1000), authz.Limit{Name: "minute", Units: 4, Window: authz.WindowMinute, Per: authz.PerAccount}
		for _, h := range []string{"acme", "other"} {
			r, facts := new(authz.Reservation), make([]authz.QuotaFact, 2)
			if !d.Reserve(t.Context(), authz.Holder{Account: h}, []authz.Limit{limit, minute}, authz.Charge{"daily": 1, "minute": 3}, facts, r) {
				t.Fatalf("refused: %+v", facts)
			}
		}
		synctest.Wait()
		first := ledger.calls.Load()
		sweepFor(d, t, 20*time.Second)
		if r, facts := reserve(t, d, authz.Charge{"daily": 1, "minute": 2}, limit, minute); r != nil || facts[1].State != authz.QuotaInsufficient {
			t.Errorf("the minute has 1 unit left: %+v", facts)
		}
		sweepFor(d, t, 5*time.Minute)
		takeSome(t, d, limit, 5)
		sweepFor(d, t, time.Minute)
		if n := ledger.calls.Load() - first; n != 0 {
			t.Errorf("%d calls to the ledger for a caller who came again", n)
		}
		if got := balance(t, ledger, limit, d); got.Spent != 6 || got.Outstanding["n"] == 0 {
			t.Errorf("%+v", got)
		}
		before := ledger.calls.Load()
		sweepFor(d, t, 30*time.Minute)
		if got := balance(t, ledger, limit); got.Spent != 6 || got.Free != 994 {
			t.Errorf("kept for ever: %+v", got)
		}
		if n := ledger.calls.Load() - before; n > 2 {
			t.Errorf("%d calls for two callers who came no more", n)
		}
		_ = d.Close(t.Context())
	})
}

// TestDispenser_SlowedCaller has a caller use much and then little, and then nothing. What a crash would strand follows.
func TestDispenser_SlowedCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := memory.NewLedger(time.Now)
		d := dispenser.New(ledger, "n", time.Now)
		limit := daily(100_000)
		held := func() int64 {
			got, err := ledger.Balance(t.Context(), quota.BucketOf(&limit, acme), limit)
			if err != nil {
				t.Fatal(err)
			}
			return got.Outstanding["n"]
		}
		for second := range 60 { // 2,000 a second
			for range 200 {
				takeSome(t, d, limit, 10)
				time.Sleep(5 * time.Millisecond)
			}
			if second%5 == 0 {
				d.Sweep(t.Context())
			}
			if n := held(); n > max(1000, 2000*min(10, int64(second)+1)) {
				t.Fatalf("after %d seconds of 2000 the node holds %d", second+1, n)
			}
			if second > 20 {
				break
			}
		}
		sweepFor(d, t, 15*time.Second)
		if n := held(); n > 1000 {
			t.Errorf("a caller who stopped leaves %d", n)
		}
		_ = d.Close(t.Context())
	})
}

// TestDispenser_SweptWhileInUse puts leases away and takes from them at the same time: every unit is used, and none twice.
func TestDispenser_SweptWhileInUse(t *testing.T) {
	eachStore(t, func(t *testing.T, ledger quota.Ledger) {
		d := dispenser.New(ledger, "n", time.Now)
		limit, minute := daily(20_000), authz.Limit{Name: "second", Units: 1 << 40, Window: authz.WindowMinute, Per: authz.PerAccount}
		var served atomic.Int64
		var wg sync.WaitGroup
		done := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					r, _ := reserve(t, d, authz.Charge{"daily": 1, "second": 1}, limit, minute)
					if r == nil {
						return
					}
					if served.Add(1); i%7 == 0 {
						r.Cancel()
						served.Add(-1)
					}
				}
			})
		}
		swept := make(chan struct{})
		go func() {
			defer close(swept)
			for {
				select {
				case <-done:
					return
				default:
					d.Sweep(t.Context())
				}
			}
		}()
		wg.Wait()
		close(done)
		<-swept
		for end := time.Now().Add(10 * time.Second); served.Load() < 20_000 && time.Now().Before(end); { // refunds are under way
			served.Add(takeAll(t, d, limit))
			_ = d.Report(t.Context(), quota.BucketOf(&limit, acme), &limit)
		}
		if got := balance(t, ledger, limit, d); served.Load() != 20_000 || got.Spent != 20_000 || got.Overage != 0 {
			t.Errorf("served %d of 20000: %+v", served.Load(), got)
		}
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestDispenser_IdleKeysAreSmall uses very many keys once each. When they are idle they take little memory, and when they have been
// for long, none.
func TestDispenser_IdleKeysAreSmall(t *testing.T) {
	const keys = 50_000
	ledger := &counting{Ledger: memory.NewLedger(time.Now)}
	now := time.Now()
	d := dispenser.New(ledger, "n", func() time.Time { return now })
	limits, facts := []authz.Limit{daily(1000)}, make([]authz.QuotaFact, 1)
	var r authz.Reservation
	before := heap()
	for i := range keys {
		if !d.Reserve(t.Context(), authz.Holder{Account: fmt.Sprint(i)}, limits, authz.Charge{"daily": 1}, facts, &r) {
			t.Fatalf("refused: %+v", facts)
		}
	}
	inUse := heap()
	d.Sweep(t.Context()) // they were used since the sweep before
	d.Sweep(t.Context())
	idle := heap()
	for range 400 {
		now = now.Add(dispenser.SweepEvery)
		d.Sweep(t.Context())
	}
	gone := heap()
	if held := ledger.held.Load(); held != 0 {
		t.Errorf("%d units are still leased", held)
	}
	eachInUse, eachIdle := (inUse-before)/keys, (idle-before)/keys
	t.Logf("%d bytes a key in use, %d when it is idle; %d KiB are left of %d keys", eachInUse, eachIdle, (gone-before)>>10, keys)
	if eachInUse > 2048 || eachIdle > 256 || gone-before > (inUse-before)/4 {
		t.Errorf("%d bytes a key in use, %d when it is idle, and %d KiB are left at the end", eachInUse, eachIdle, (gone-before)>>10)
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

// counting is a ledger that grants everything and counts only the units that are leased.
type counting struct {
	quota.Ledger
	held atomic.Int64
}

func (c *counting) Lease(_ context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	out := make([]quota.Answer, len(rs))
	for i, r := range rs {
		for _, p := range r.Parts {
			c.held.Add(p.Want - p.Spent - p.Back)
			out[i].Parts = append(out[i].Parts, quota.Lease{ // each has one lease
				Period: quota.PeriodAt(&p.Limit, time.Now()), Granted: p.Want, Held: p.Want, Counted: p.Want, Nodes: 1,
			})
		}
	}
	return out, nil
}

func TestDispenser_CloseReturnsLeases(t *testing.T) {
	ledger := &recalls{Ledger: memory.NewLedger(time.Now)}
	d := dispenser.New(ledger, "n", time.Now)
	limit := daily(1000)
	reserve(t, d, authz.Charge{"daily": 1}, limit)
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := balance(t, ledger, limit); got.Spent != 1 || got.Free != 999 || len(got.Outstanding) != 0 {
		t.Errorf("after close: %+v", got)
	}
	if !ledger.stopped {
		t.Error("a closed node still hears recalls")
	}
}

// recalls is a ledger that notes when a node no longer hears recalls.
type recalls struct {
	quota.Ledger
	stopped bool
}

func (r *recalls) Join(node quota.NodeID, p quota.Peer) func() {
	leave := r.Ledger.Join(node, p)
	return func() {
		leave()
		r.stopped = true
	}
}

// TestDispenser_ClosedWhileItLeases closes a dispenser while it asks for a lease ahead of need.
func TestDispenser_ClosedWhileItLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &slow{memory.NewLedger(time.Now)}
		d := dispenser.New(ledger, "n", time.Now)
		limit := daily(1000)
		takeSome(t, d, limit, 14) // of 16
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if got := balance(t, ledger, limit); got.Spent != 14 || len(got.Outstanding) != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// asking is a ledger with another node, which asks for units of a rate until this one has left.
type asking struct {
	quota.Ledger
	limit authz.Limit
}

func (a *asking) Join(node quota.NodeID, p quota.Peer) (leave func()) {
	silence := a.Ledger.Join(node, p)
	return func() {
		start := quota.PeriodAt(&a.limit, time.Now()).Start
		p.Lend(quota.RateRequest{Bucket: quota.BucketOf(&a.limit, acme), Limit: a.limit, Start: start, Units: 1})
		silence()
	}
}

// TestDispenser_CloseWhileOthersBorrow has another node ask while this one returns its leases: that leaves nothing behind.
func TestDispenser_CloseWhileOthersBorrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := authz.Limit{Name: "second", Units: 4, Window: authz.WindowSecond, Per: authz.PerAccount}
		d := dispenser.New(&asking{memory.NewLedger(time.Now), second}, "n", time.Now)
		takeSome(t, d, daily(10), 1)
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
