package dispenser_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// damaged is a ledger that refuses one holder, as a store does whose record is damaged.
type damaged struct {
	*memory.Ledger
	holder  atomic.Pointer[string]
	refused atomic.Int64
}

func (d *damaged) Lease(ctx context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	out := make([]quota.Answer, len(rs))
	for i := range rs {
		if h := d.holder.Load(); h != nil && rs[i].Holder.Holder == *h {
			d.refused.Add(1)
			out[i].Err = authz.Errorf(authz.KindConflict, "the record is damaged")
			continue
		}
		answers, err := d.Ledger.Lease(ctx, rs[i:i+1])
		if err != nil {
			return nil, err
		}
		out[i] = answers[0]
	}
	return out, nil
}

// TestDispenser_DamagedRecordHoldsUpNobody has the ledger lose commits, and then refuse what the node has to tell of one holder. The node
// asks a few times, and goes on; the ledger grants again.
func TestDispenser_DamagedRecordHoldsUpNobody(t *testing.T) {
	clock := quotatest.NewClock()
	ledger := &damaged{Ledger: memory.NewLedger(clock.Now)}
	d := dispenser.New(ledger, "a", clock.Now)
	l := daily(1000)
	take := func(account string) (authz.QuotaFact, bool) {
		facts := make([]authz.QuotaFact, 1)
		ok := d.Reserve(t.Context(), authz.Holder{Key: "k", Account: account}, []authz.Limit{l}, authz.Charge{"daily": 1}, facts, new(authz.Reservation))
		return facts[0], ok
	}
	for _, account := range []string{"good", "bad"} {
		if f, ok := take(account); !ok {
			t.Fatalf("%s: %+v", account, f)
		}
	}
	bad := "bad"
	ledger.holder.Store(&bad)
	ledger.Lost(clock.Now())
	for range 3 { // the first learns of the session, and another one of the view
		d.Sweep(t.Context())
	}
	if n := ledger.refused.Load(); n == 0 || n > 50 {
		t.Errorf("the damaged record was asked for %d times", n)
	}
	if f, ok := take("new"); ok || f.State != authz.QuotaUnavailable {
		t.Errorf("the ledger does not withhold: %+v", f)
	}
	for range 13 { // a term, in which the node renews its session
		clock.Advance(dispenser.SweepEvery)
		d.Sweep(t.Context())
	}
	if f, ok := take("new"); !ok {
		t.Errorf("the ledger still withholds: %+v", f)
	}
	if f, ok := take("bad"); ok || f.State != authz.QuotaUnavailable {
		t.Errorf("the damaged record: %+v", f)
	}
}

// TestDispenser_RestatesAfterCallUnderWay has a call hang while all has to be told. The sweep waits for it.
func TestDispenser_RestatesAfterCallUnderWay(t *testing.T) {
	clock := quotatest.NewClock()
	inner := memory.NewLedger(clock.Now)
	held := &hanging{Ledger: inner, entered: make(chan struct{}, 100), release: make(chan struct{})}
	d := dispenser.New(held, "a", clock.Now)
	l := daily(10)
	reserve(t, d, authz.Charge{"daily": 1}, l)
	<-held.entered
	held.hang.Store(true)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		takeAll(t, d, l)
	}()
	<-held.entered
	inner.Lost(clock.Now())
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		d.Sweep(t.Context())
		d.Sweep(t.Context())
	}()
	renewals := held.renewals.Load()
	select {
	case <-swept:
		t.Error("the sweep did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	if n := held.renewals.Load() - renewals; n > 10 {
		t.Errorf("it renewed the session %d times", n)
	}
	held.hang.Store(false)
	close(held.release)
	<-swept
	<-asked
	clock.Advance(quota.SessionTerm / 2)
	d.Sweep(t.Context())
	clock.Advance(quota.SessionTerm/2 + time.Second)
	d.Sweep(t.Context())
	if at := inner.At(clock.Now()); at.Withhold {
		t.Error("the ledger still withholds")
	}
}

// hanging is a ledger whose leases can hang.
type hanging struct {
	quota.Ledger
	hang     atomic.Bool
	renewals atomic.Int64
	entered  chan struct{}
	release  chan struct{}
}

func (h *hanging) Renew(ctx context.Context, n quota.NodeID, s quota.Standing) (quota.Session, error) {
	h.renewals.Add(1)
	return h.Ledger.Renew(ctx, n, s)
}

func (h *hanging) Lease(ctx context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	h.entered <- struct{}{}
	if h.hang.Load() {
		<-h.release
	}
	return h.Ledger.Lease(ctx, rs)
}

// TestDispenser_RunPausesWhileTellingFails has the ledger renew sessions and refuse everything else for a while. The node does not ask
// without a pause.
func TestDispenser_RunPausesWhileTellingFails(t *testing.T) {
	inner := memory.NewLedger(time.Now)
	held := &failing{hanging: hanging{Ledger: inner, entered: make(chan struct{}, 1_000_000)}}
	d := dispenser.New(held, "a", time.Now)
	reserve(t, d, authz.Charge{"daily": 1}, daily(10))
	held.fails.Store(true)
	inner.Lost(time.Now())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	d.Run(ctx)
	if n := held.renewals.Load(); n > 10 {
		t.Errorf("it renewed the session %d times in 0.3 s", n)
	}
}

// failing is a ledger that answers nothing but Renew.
type failing struct {
	hanging
	fails atomic.Bool
}

func (f *failing) Lease(ctx context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	if f.fails.Load() {
		return nil, authz.Errorf(authz.KindUnavailable, "not now")
	}
	return f.hanging.Lease(ctx, rs)
}
