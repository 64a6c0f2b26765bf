package dispenser_test

import (
	"context"
	"fmt"
	"runtime"
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

func TestDispenser_SweepReturnsIdleLeases(t *testing.T) {
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

// TestDispenser_IdleKeysAreForgotten uses very many keys once each. When they are idle, their leases go back and their memory
// is free.
func TestDispenser_IdleKeysAreForgotten(t *testing.T) {
	const keys = 50_000
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

// counting is a ledger that grants everything and counts only the units that are leased.
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

func (r *recalls) OnRecall(node quota.NodeID, giveBack func(context.Context, quota.Bucket)) func() {
	stop := r.Ledger.OnRecall(node, giveBack)
	return func() {
		stop()
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
