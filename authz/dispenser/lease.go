package dispenser

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// bucketLease is a node's share of one bucket: what it has in hand, and how it gets more.
//
// Taking what is in hand is the business of hand and takes no lock. Everything else happens under the bucketLease's lock, which
// is never held during I/O. There is one call to the ledger at a time; one whose answer was lost is repeated as it was
// before anything else is asked, so that the ledger counts it once.
type bucketLease struct {
	d       *Dispenser
	bucket  quota.Bucket
	limit   atomic.Pointer[authz.Limit]
	holding atomic.Pointer[holding]
	used    atomic.Bool // since the last sweep

	mu                    sync.Mutex
	size                  int64     // how many units to lease at once
	nodes                 int64     // how many nodes share the bucket, this one included
	elsewhere             int64     // what others hold
	waiting               int64     // units that takers wait for
	recalled, surrendered time.Time // when that was last done
	queue                 []request // made and not answered; the first is the one that is sent
	flight                *flight   // the call that is under way
	dead                  bool      // retired: use another tap
}

// request is one call to the ledger: a lease, or the return of units.
type request struct {
	quota.LeaseRequest
	holding  *holding // whose units it is about
	low      int64    // with fewer in hand it is time to ask again
	isReturn bool
	back     int64
	// made is when the request was made, before it was first sent. The term of the lease counts from then, also when
	// the answer comes to a repetition: the ledger answers that as it did the first, and counts from the first as well.
	made time.Time
}

// flight is one call to the ledger. Those who wait for it read err after done is closed.
type flight struct {
	done chan struct{}
	err  error
}

const (
	// The first lease of a bucket is that many units, or that part of the limit: before it is known how busy the bucket
	// is, little is risked, and large limits are not leased in small change.
	firstLease, firstShare = 16, 200
	// leastShared is the smallest lease where other nodes want units as well: the last ones would cost a call each. What one
	// node then lacks is recalled from another. A node alone takes down to one unit, so that a crash forfeits little.
	leastShared = firstLease
	// recheck is how long "nothing is left" is believed before the ledger is asked again: others may have returned
	// units, or somebody may have paid elsewhere. It bounds how long somebody is refused while units lie idle: within
	// recheck before a refusal there was an instant at which the ledger had none to grant, and for each node that can be
	// reached one at which it had none in hand. The simulation holds that.
	recheck = time.Second
	// A lease should last between these two: a crash forfeits a few seconds' worth.
	fastLease, slowLease = 2 * time.Second, 20 * time.Second
)

func newBucketLease(d *Dispenser, b quota.Bucket, l *authz.Limit) *bucketLease {
	t := &bucketLease{d: d, bucket: b, nodes: 1}
	t.limit.Store(l)
	t.holding.Store(newHolding(t, quota.Period{}))
	return t
}

// adopt notes under which limit the bucket was used last: the calls that no request waits for are made under it.
func (t *bucketLease) adopt(l *authz.Limit) {
	if old := t.limit.Load(); old != l && *old != *l {
		t.limit.Store(l)
	}
	if !t.used.Load() {
		t.used.Store(true)
	}
}

// glance reports the state of the bucket under a limit, and false if the ledger has to be asked for it.
func (t *bucketLease) glance(l *authz.Limit, now time.Time) (f authz.QuotaFact, known bool) {
	if !t.known(l, now) {
		return f, false
	}
	if f = t.holding.Load().fact(l, 0); f.State == authz.QuotaOK {
		return f, true
	}
	t.mu.Lock() // "nothing is left" may be an answer of the ledger that is half taken over
	defer t.mu.Unlock()
	return t.holding.Load().fact(l, 0), t.known(l, now)
}

// peek reports the state of the bucket under a limit, and false if the tap is dead.
func (t *bucketLease) peek(ctx context.Context, l *authz.Limit) (authz.QuotaFact, bool) {
	if f, known := t.glance(l, t.d.now()); known {
		return f, true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for asked := false; ; asked = true {
		h := t.holding.Load()
		switch {
		case t.dead:
			return authz.QuotaFact{}, false
		case t.known(l, t.d.now()), asked && h.under.Load() <= l.Units: // the answer came while we waited
			return h.fact(l, 0), true
		}
		if err := t.callLocked(ctx, l, 0); err != nil {
			if h := t.holding.Load(); !h.open(l.Units) || h.under.Load() > l.Units || !h.good(t.d.now()) {
				return unavailable(l), !t.dead
			}
			return h.fact(l, 0), !t.dead
		}
	}
}

// known reports whether the state of the bucket under a limit can be told without asking the ledger.
func (t *bucketLease) known(l *authz.Limit, now time.Time) bool {
	h := t.holding.Load()
	return t.answered(h, l, now) && (h.open(l.Units) || h.floor(l.Units) >= 0 && !t.outdated(h, now))
}

// answered reports whether the ledger has said what the hand has under such a limit.
func (t *bucketLease) answered(h *holding, l *authz.Limit, now time.Time) bool {
	return h.asked.Load() != 0 && h.under.Load() <= l.Units && h.good(now)
}

// outdated reports whether others may have returned units, or paid, since the ledger was asked.
func (t *bucketLease) outdated(h *holding, now time.Time) bool {
	since := now.UnixNano() - h.asked.Load()
	return since >= int64(recheck) || since < 0 // the clock was put back
}

// warm has the ledger asked and does not wait. It returns false if the tap is dead.
func (t *bucketLease) warm(l *authz.Limit) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.dead {
		t.startLocked(l)
	}
	return !t.dead
}

// take takes units under a limit, and returns the hand that they came from. It is nil if there were too few, and the fact
// then says why.
func (t *bucketLease) take(ctx context.Context, l *authz.Limit, units int64) (*holding, authz.QuotaFact, bool) {
	if h := t.holding.Load(); h.take(units, l.Units, t.d.now) {
		if h.left.Load() < h.low.Load() && h.floor(l.Units) < 0 {
			t.ahead(l)
		}
		return h, h.taken(l), true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		if t.dead {
			return nil, authz.QuotaFact{}, false
		}
		h := t.holding.Load()
		if h.take(units, l.Units, t.d.now) {
			return h, h.taken(l), true
		}
		now := t.d.now()
		answered := t.answered(h, l, now)
		short := answered && h.remaining(l.Units) < units
		if short && !t.outdated(h, now) && !t.recallLocked(ctx, now) {
			return nil, h.fact(l, units), true
		}
		want := units
		if short || !answered && units > firstLease { // nothing is leased for a request that may cost more than there is
			want = 0
		}
		if err := t.callLocked(ctx, l, want); err != nil {
			return nil, unavailable(l), !t.dead
		}
	}
}

// undo puts units back, and returns false if the ledger knows them as spent already.
func (t *bucketLease) undo(h *holding, units int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.dead && t.holding.Load() == h && h.restore(units)
}

func unavailable(l *authz.Limit) authz.QuotaFact {
	return authz.QuotaFact{State: authz.QuotaUnavailable, Limit: l.Units}
}

// ahead asks for more before the last unit is taken. Nobody waits for it.
func (t *bucketLease) ahead(l *authz.Limit) {
	if !t.mu.TryLock() {
		return // another call is about to be made
	}
	defer t.mu.Unlock()
	if h := t.holding.Load(); !t.dead && t.flight == nil && h.left.Load() < h.low.Load() {
		t.startLocked(l)
	}
}

// recallLocked asks other nodes to give back what they hold, unless that was done within recheck, and reports whether it
// did, and so the ledger has to be asked again. It releases the lock while it waits.
func (t *bucketLease) recallLocked(ctx context.Context, now time.Time) bool {
	if t.elsewhere == 0 || now.Sub(t.recalled) < recheck {
		return false
	}
	t.recalled = now
	t.mu.Unlock()
	t.d.ledger.Recall(ctx, t.d.node, t.bucket)
	t.mu.Lock()
	return true
}

// callLocked has the ledger asked for that many units under a limit, or joins the call under way, and waits. It releases
// the lock while it waits.
func (t *bucketLease) callLocked(ctx context.Context, l *authz.Limit, units int64) error {
	t.waiting = min(quota.MaxUnits, t.waiting) + units
	f := t.startLocked(l)
	t.mu.Unlock()
	var err error
	select {
	case <-f.done:
		err = f.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	t.mu.Lock()
	t.waiting -= units
	return err
}

// startLocked starts a call unless one is under way.
func (t *bucketLease) startLocked(l *authz.Limit) *flight {
	if t.flight != nil {
		return t.flight
	}
	f := &flight{done: make(chan struct{})}
	t.flight = f
	if len(t.queue) == 0 {
		t.queue = append(t.queue, t.leaseLocked(l))
	}
	r := t.queue[0]
	t.d.goCall(func(ctx context.Context) {
		lease, err := t.d.send(ctx, r)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.answerLocked(r, lease, err)
		t.flight, f.err = nil, err
		close(f.done)
		if err == nil && len(t.queue) > 0 {
			t.startLocked(l)
		}
	})
	return f
}

// leaseLocked makes a request for more that reports what was spent.
func (t *bucketLease) leaseLocked(l *authz.Limit) request {
	h := t.holding.Load()
	left := h.left.Load()
	size := t.sizeLocked(h, left, l)
	r := t.requestLocked(h, l)
	r.Want, r.low = min(quota.MaxUnits, max(0, max(size, t.waiting)-left)), size/4
	return r
}

func (t *bucketLease) requestLocked(h *holding, l *authz.Limit) request {
	return request{holding: h, made: t.d.now(), LeaseRequest: quota.LeaseRequest{
		Node: t.d.node, Seq: t.d.seq.Add(1), Bucket: t.bucket, Limit: *l, Held: h.period, Spent: h.unreported(),
	}}
}

// returnLocked makes a request that gives back everything in hand, nil if there is nothing to say.
func (t *bucketLease) returnLocked(h *holding) *request {
	back := h.drain()
	r := t.requestLocked(h, t.limit.Load())
	if r.isReturn, r.back = true, back; r.back == 0 && r.Spent == 0 {
		return nil
	}
	h.asked.Store(0)
	return &r
}

// sizeLocked is how many units to have in hand: as many as fit to how fast the last ones were used up, within this node's
// share of what is left, so that the last units are leased in small change and a crash forfeits little. A node alone takes
// half. What others then lack is recalled, where it can be.
func (t *bucketLease) sizeLocked(h *holding, left int64, l *authz.Limit) int64 {
	room := l.Units
	if asked := h.asked.Load(); asked != 0 {
		room = h.remaining(l.Units)
		switch lasted := time.Duration(t.d.now().UnixNano() - asked); {
		case left <= h.low.Load() && lasted < fastLease:
			t.size *= 2
		case lasted > slowLease:
			t.size /= 2
		}
	} else if t.size == 0 {
		t.size = max(firstLease, room/firstShare)
	}
	least := int64(1)
	if t.nodes > 1 {
		least = leastShared
	}
	if room == 0 { // there may be units under another limit, for which the size has to stay
		return least
	}
	t.size = max(least, min(t.size, room/max(2, t.nodes)))
	return t.size
}

// answerLocked takes over the ledger's answer to the first request of the queue.
func (t *bucketLease) answerLocked(r request, lease quota.Lease, err error) {
	if k := authz.KindOf(err); err != nil && k != authz.KindInvalid && k != authz.KindConflict {
		return // unknown whether it took place: it is repeated
	}
	t.queue = t.queue[1:]
	switch h := t.holding.Load(); {
	case err != nil: // it did not take place: what it would have said is said by the next one
		r.holding.reported -= r.Spent
		r.holding.restock(r.back)
	case r.isReturn: // the hand knows
	default:
		if !lease.Period.Same(h.period) {
			if back := t.returnLocked(h); back != nil { // of the period that is over
				t.queue = append(t.queue, *back)
			}
			h = newHolding(t, lease.Period)
		}
		h.refill(lease, r.made, r.Limit.Units)
		t.nodes, t.elsewhere = lease.Nodes, lease.Elsewhere
		h.low.Store(r.low)
		t.holding.Store(h)
		t.surrenderLocked(h, &r.Limit)
	}
}

// surrenderLocked has units given back that the limit does not grant any more, as it was lowered. Where requests under
// more units come as well, they lease them again: so this is done once within recheck.
func (t *bucketLease) surrenderLocked(h *holding, l *authz.Limit) {
	now := t.d.now()
	if h.floor(l.Units) <= 0 || now.Sub(t.surrendered) < recheck {
		return
	}
	if back := h.giveUp(h.floor(l.Units)); back > 0 {
		t.surrendered = now
		r := t.requestLocked(h, l)
		r.isReturn, r.back = true, back
		t.queue = append(t.queue, r)
	}
}

// report tells the ledger what was spent, and learns what changed there and what is left under that limit.
func (t *bucketLease) report(ctx context.Context, l *authz.Limit) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead {
		return nil
	}
	for t.flight != nil || len(t.queue) > 0 { // what these carry is older than what we were asked to report
		if err := t.callLocked(ctx, l, 0); err != nil {
			return err
		}
	}
	t.surrendered = time.Time{} // who asks for a report wants to see the units back
	if err := t.callLocked(ctx, l, 0); err != nil {
		return err
	}
	for len(t.queue) > 0 { // units that the limit does not grant any more
		if err := t.callLocked(ctx, l, 0); err != nil {
			return err
		}
	}
	return nil
}

// sweep renews a lease that would run out before the next sweeps, reports what a crash would otherwise refund, and gives
// back what was not used since the last sweep.
func (t *bucketLease) sweep(ctx context.Context) error {
	if !t.used.Swap(false) {
		return t.retire(ctx)
	}
	l := t.limit.Load()
	if soon := t.d.now().Add(2 * SweepEvery); l.RefundOnCrash || !t.holding.Load().good(soon) {
		return t.report(ctx, l)
	}
	return nil
}

// giveBack returns what is in hand, because another node has nothing left.
func (t *bucketLease) giveBack(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recalled = t.d.now() // the others gave back as well: to ask them again would only send the last units around
	_ = t.returnAllLocked(ctx)
}

// returnAllLocked gives everything in hand back and waits until the ledger has it.
func (t *bucketLease) returnAllLocked(ctx context.Context) error {
	if r := t.returnLocked(t.holding.Load()); r != nil {
		t.queue = append(t.queue, *r)
	}
	for t.flight != nil || len(t.queue) > 0 {
		if err := t.callLocked(ctx, t.limit.Load(), 0); err != nil {
			return err
		}
	}
	return nil
}

// retire gives everything back, after which the tap is dead and forgotten, unless a request came and uses it again.
func (t *bucketLease) retire(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.flight != nil || len(t.queue) > 0 { // what these bring is given back as well
		if err := t.callLocked(ctx, t.limit.Load(), 0); err != nil {
			return err
		}
	}
	if err := t.returnAllLocked(ctx); err != nil {
		return err
	}
	h := t.holding.Load()
	t.dead = h.left.Load() == 0 && t.waiting == 0 && t.flight == nil && len(t.queue) == 0 && h.issued-h.reported <= 0
	if t.dead {
		t.d.forget(t)
	}
	return nil
}
