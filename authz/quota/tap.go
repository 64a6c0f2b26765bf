package quota

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// tap is a node's share of one bucket: what it has in hand, and how it gets more.
//
// Taking what is in hand is the business of hand and takes no lock. Everything else happens under the tap's lock, which
// is never held during I/O. There is one call to the ledger at a time; one whose answer was lost is repeated as it was
// before anything else is asked, so that the ledger counts it once.
type tap struct {
	d      *Dispenser
	bucket Bucket
	limit  atomic.Pointer[authz.Limit]
	hand   atomic.Pointer[hand]
	used   atomic.Bool // since the last sweep

	mu        sync.Mutex
	size      int64 // how many units to lease at once
	nodes     int64 // how many nodes share the bucket, this one included
	elsewhere int64 // what others hold
	waiting   int64 // units that takers wait for
	recalled  time.Time
	queue     []request // made and not answered; the first is the one that is sent
	flight    *flight   // the call that is under way
	dead      bool      // retired: use another tap
}

// request is one call to the ledger: a lease, or the return of units.
type request struct {
	LeaseRequest
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
	// leastShared is the smallest lease where units can be recalled from others: the last ones would cost a call each,
	// and a node that got its first lease risked as many.
	leastShared = firstLease
	// recheck is how long "nothing is left" is believed before the ledger is asked again: others may have returned
	// units, or somebody may have paid elsewhere. It bounds how long somebody is refused while units lie idle: within
	// recheck before a refusal there was an instant at which the ledger had none to grant, and for each node that can be
	// reached one at which it had none in hand. The simulation holds that.
	recheck = time.Second
	// A lease should last between these two: a crash forfeits a few seconds' worth.
	fastLease, slowLease = 2 * time.Second, 20 * time.Second
)

func newTap(d *Dispenser, b Bucket, l *authz.Limit) *tap {
	t := &tap{d: d, bucket: b, nodes: 1}
	t.limit.Store(l)
	t.hand.Store(newHand(t, Period{}))
	return t
}

// adopt takes over a limit that was changed with the plan. Other periods begin at once. More or fewer units count when
// the ledger is asked next: keys of one account may be on plans that differ in them, and must not ask on every request.
func (t *tap) adopt(l *authz.Limit) {
	if old := t.limit.Load(); old != l && *old != *l {
		t.limit.Store(l)
		if !samePeriods(old, l) {
			t.hand.Load().asked.Store(0)
		}
	}
	if !t.used.Load() {
		t.used.Store(true)
	}
}

// peek reports the state of the bucket, and false if the tap is dead.
func (t *tap) peek(ctx context.Context) (authz.QuotaFact, bool) {
	if t.known(t.d.now()) {
		return t.hand.Load().fact(0), true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.dead:
		return authz.QuotaFact{}, false
	case t.known(t.d.now()): // the answer came while we waited for the lock
		return t.hand.Load().fact(0), true
	}
	if err := t.callLocked(ctx, 0); err != nil {
		if h := t.hand.Load(); h.left.Load() == 0 || !h.good(t.d.now()) {
			return t.unavailable(), !t.dead
		}
	}
	return t.hand.Load().fact(0), !t.dead
}

// known reports whether the state of the bucket can be told without asking the ledger.
func (t *tap) known(now time.Time) bool {
	h := t.hand.Load()
	return h.good(now) && h.asked.Load() != 0 && (h.left.Load() > 0 || !t.outdated(h, now))
}

// warm has the ledger asked and does not wait. It returns false if the tap is dead.
func (t *tap) warm() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.dead {
		t.startLocked()
	}
	return !t.dead
}

// take takes units, and returns the hand that they came from. It is nil if there were too few, and the fact then says why.
func (t *tap) take(ctx context.Context, units int64) (*hand, authz.QuotaFact, bool) {
	if h := t.hand.Load(); h.take(units, t.d.now) {
		if h.left.Load() < h.low.Load() && h.free.Load() > 0 {
			t.ahead()
		}
		return h, h.taken(), true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		if t.dead {
			return nil, authz.QuotaFact{}, false
		}
		h := t.hand.Load()
		if h.take(units, t.d.now) {
			return h, h.taken(), true
		}
		if now := t.d.now(); h.good(now) && h.asked.Load() != 0 && h.left.Load() < units && !t.outdated(h, now) && !t.recallLocked(ctx, now) {
			return nil, h.fact(units), true
		}
		if err := t.callLocked(ctx, units); err != nil {
			return nil, t.unavailable(), !t.dead
		}
	}
}

// undo puts units back, and returns false if the ledger knows them as spent already.
func (t *tap) undo(h *hand, units int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.dead && t.hand.Load() == h && h.restore(units)
}

// outdated reports whether the ledger may have more than it said.
func (t *tap) outdated(h *hand, now time.Time) bool {
	return h.free.Load() > 0 || now.UnixNano()-h.asked.Load() >= int64(recheck)
}

// fact describes what is in hand to somebody who wants that many units.
func (h *hand) fact(want int64) authz.QuotaFact {
	f := authz.QuotaFact{
		State: authz.QuotaOK, Limit: h.allowance.Load(), Remaining: h.left.Load() + h.free.Load(), ResetsAt: h.period.End,
	}
	if !h.period.Forever() {
		f.Window = h.period.End.Sub(h.period.Start)
	}
	switch {
	case f.Remaining == 0:
		f.State = authz.QuotaExhausted
	case f.Remaining < want:
		f.State = authz.QuotaInsufficient
	}
	return f
}

// taken is the fact for who has just taken units, which is good even for the last one.
func (h *hand) taken() authz.QuotaFact {
	f := h.fact(0)
	f.State = authz.QuotaOK
	return f
}

func (t *tap) unavailable() authz.QuotaFact {
	return authz.QuotaFact{State: authz.QuotaUnavailable, Limit: t.limit.Load().Units}
}

// ahead asks for more before the last unit is taken. Nobody waits for it.
func (t *tap) ahead() {
	if !t.mu.TryLock() {
		return // somebody is at it
	}
	defer t.mu.Unlock()
	if h := t.hand.Load(); !t.dead && t.flight == nil && h.left.Load() < h.low.Load() {
		t.startLocked()
	}
}

// recallLocked asks other nodes to give back what they hold, unless somebody did so within recheck, and reports whether
// there is a reason to ask the ledger again. It releases the lock while it waits.
func (t *tap) recallLocked(ctx context.Context, now time.Time) bool {
	r, ok := t.d.ledger.(Recaller)
	if !ok || t.elsewhere == 0 || now.Sub(t.recalled) < recheck {
		return false
	}
	t.recalled = now
	t.mu.Unlock()
	err := r.Recall(ctx, t.d.node, t.bucket)
	t.mu.Lock()
	return err == nil
}

// callLocked has the ledger asked for that many units, or joins the call under way, and waits. It releases the lock
// while it waits.
func (t *tap) callLocked(ctx context.Context, units int64) error {
	t.waiting += units
	f := t.startLocked()
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
func (t *tap) startLocked() *flight {
	if t.flight != nil {
		return t.flight
	}
	f := &flight{done: make(chan struct{})}
	t.flight = f
	if len(t.queue) == 0 {
		t.queue = append(t.queue, t.leaseLocked())
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
			t.startLocked()
		}
	})
	return f
}

// leaseLocked makes a request for more that reports what was spent.
func (t *tap) leaseLocked() request {
	h := t.hand.Load()
	left := h.left.Load()
	t.resizeLocked(h, left)
	r := t.requestLocked(h)
	r.Want = max(0, max(t.size, t.waiting)-left)
	return r
}

func (t *tap) requestLocked(h *hand) request {
	return request{made: t.d.now(), LeaseRequest: LeaseRequest{
		Node: t.d.node, Seq: t.d.seq.Add(1), Bucket: t.bucket, Limit: *t.limit.Load(), Held: h.period, Spent: h.unreported(),
	}}
}

// returnLocked makes a request that gives back everything in hand, nil if there is nothing to say.
func (t *tap) returnLocked(h *hand) *request {
	back := h.drain()
	r := t.requestLocked(h)
	if r.isReturn, r.back = true, back; r.back == 0 && r.Spent == 0 {
		return nil
	}
	return &r
}

// resizeLocked fits the size of the lease to how fast the last one was used up, within this node's share of what is left,
// so that the last units are leased in small change and a crash forfeits little. A node alone takes half. What others then
// lack is recalled, where it can be.
func (t *tap) resizeLocked(h *hand, left int64) {
	room := t.limit.Load().Units
	if asked := h.asked.Load(); asked != 0 {
		room = h.free.Load() + left
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
	if _, ok := t.d.ledger.(Recaller); ok {
		least = leastShared
	}
	t.size = max(least, min(t.size, room/max(2, t.nodes)))
}

// answerLocked takes over the ledger's answer to the first request of the queue.
func (t *tap) answerLocked(r request, lease Lease, err error) {
	h := t.hand.Load()
	if err != nil {
		if k := authz.KindOf(err); k == authz.KindInvalid || k == authz.KindConflict {
			t.queue = t.queue[1:] // refused, and so never happened: start afresh, for our counts do not agree
			h.drain()
			t.hand.Store(newHand(t, h.period))
		}
		return
	}
	t.queue = t.queue[1:]
	if r.isReturn {
		h.asked.Store(0)
		return
	}
	if !lease.Period.Same(h.period) {
		if back := t.returnLocked(h); back != nil { // of the period that is over
			t.queue = append(t.queue, *back)
		}
		h = newHand(t, lease.Period)
	}
	h.refill(lease, r.made)
	t.nodes, t.elsewhere = max(1, lease.Nodes), lease.Elsewhere
	h.low.Store(t.size / 4)
	t.hand.Store(h)
}

// report tells the ledger what was spent, and learns what changed there.
func (t *tap) report(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead {
		return nil
	}
	for t.flight != nil || len(t.queue) > 0 { // what these carry is older than what we were asked to report
		if err := t.callLocked(ctx, 0); err != nil {
			return err
		}
	}
	return t.callLocked(ctx, 0)
}

// sweep renews a lease that would run out before the next sweeps, reports what a crash would otherwise refund, and gives
// back what nobody used since the last sweep.
func (t *tap) sweep(ctx context.Context) error {
	if !t.used.Swap(false) {
		return t.retire(ctx)
	}
	if soon := t.d.now().Add(2 * SweepEvery); t.limit.Load().RefundOnCrash || !t.hand.Load().good(soon) {
		return t.report(ctx)
	}
	return nil
}

// giveBack returns what is in hand, because another node has nothing left.
func (t *tap) giveBack(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recalled = t.d.now() // the others gave back as well: to ask them again would only send the last units around
	_ = t.returnAllLocked(ctx)
}

// returnAllLocked gives everything in hand back and waits until the ledger has it.
func (t *tap) returnAllLocked(ctx context.Context) error {
	if r := t.returnLocked(t.hand.Load()); r != nil {
		t.queue = append(t.queue, *r)
	}
	for t.flight != nil || len(t.queue) > 0 {
		if err := t.callLocked(ctx, 0); err != nil {
			return err
		}
	}
	return nil
}

// retire gives everything back, after which the tap is dead and forgotten, unless somebody came and uses it again.
func (t *tap) retire(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.returnAllLocked(ctx); err != nil {
		return err
	}
	h := t.hand.Load()
	t.dead = h.left.Load() == 0 && t.waiting == 0 && t.flight == nil && len(t.queue) == 0 && h.issued-h.reported <= 0
	if t.dead {
		t.d.forget(t.bucket, t)
	}
	return nil
}
