package quota

import (
	"context"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// tap is what a node holds of one bucket.
//
// Units may be taken only under a lease whose period has not ended and whose term has not run out. What was spent is
// reported with the next call to the ledger. There is at most one call at a time, and one whose answer was lost is
// repeated as it was before anything else is asked, so that the ledger counts it once.
type tap struct {
	d      *Dispenser
	bucket Bucket

	mu      sync.Mutex
	limit   authz.Limit
	lease   Lease     // the last answer
	left    int64     // units in hand; they can be taken only while the lease is good
	spent   int64     // units spent and not yet in a request to the ledger
	until   time.Time // when the lease runs out, by our clock
	asked   time.Time // when the ledger last answered; zero: never, or what it said is known to be out of date
	size    int64     // how many units to lease at once
	waiting int64     // units that takers wait for
	pending *request  // made and not answered
	flight  *flight   // the call that carries it
	used    bool      // since the last sweep
	dead    bool      // retired: use another tap
}

// request is one call to the ledger: a lease, or the return of everything.
type request struct {
	LeaseRequest
	isReturn bool
	back     int64
}

// flight is one call to the ledger. Those who wait for it read err after done is closed.
type flight struct {
	done chan struct{}
	err  error
}

const (
	firstLease = 16
	// recheck is how long "nothing is left" is believed before the ledger is asked again: others may have returned
	// units, or somebody may have paid elsewhere.
	recheck = time.Second
	// fastLease and slowLease bound how long a lease should last: a crash forfeits about a second's worth.
	fastLease, slowLease = time.Second, 10 * time.Second
)

// adopt takes over a limit that was changed with the plan.
func (t *tap) adopt(l *authz.Limit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.limit != *l {
		t.limit, t.asked = *l, time.Time{}
	}
	t.used = true
}

func (t *tap) terms() authz.Limit {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.limit
}

// peek reports the state of the bucket, and false if the tap is dead.
func (t *tap) peek(ctx context.Context) (authz.QuotaFact, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.goodLocked() || t.left == 0 && t.worthAskingLocked() {
		if err := t.callLocked(ctx, 0); err != nil && (t.left == 0 || !t.goodLocked()) {
			return t.unavailableLocked(), !t.dead
		}
	}
	return t.factLocked(0), !t.dead
}

// take takes units. The part has no units if there were too few, and the fact then says why.
func (t *tap) take(ctx context.Context, units int64) (part, authz.QuotaFact, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		if t.dead {
			return part{}, authz.QuotaFact{}, false
		}
		good := t.goodLocked()
		if good && t.left >= units {
			t.left -= units
			t.spent += units
			fact := t.factLocked(0)
			fact.State = authz.QuotaOK // for who took the last unit
			return part{tap: t, units: units, period: t.lease.Period}, fact, true
		}
		if good && !t.worthAskingLocked() {
			return part{}, t.factLocked(units), true
		}
		if err := t.callLocked(ctx, units); err != nil {
			return part{}, t.unavailableLocked(), !t.dead
		}
	}
}

// undo puts units back, and returns false if the ledger knows them as spent already.
func (t *tap) undo(p part) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead || t.spent < p.units || !t.lease.Period.Same(p.period) {
		return false
	}
	t.spent -= p.units
	t.left += p.units
	return true
}

// goodLocked reports whether there is a lease under which units may be taken.
func (t *tap) goodLocked() bool {
	now := t.d.now()
	over := !t.lease.Period.Forever() && !now.Before(t.lease.Period.End)
	return !t.asked.IsZero() && !over && now.Before(t.until)
}

// worthAskingLocked reports whether the ledger may have more than it said.
func (t *tap) worthAskingLocked() bool {
	return t.lease.Free > 0 || t.d.now().Sub(t.asked) >= recheck
}

// factLocked describes the bucket to somebody who wants that many units.
func (t *tap) factLocked(want int64) authz.QuotaFact {
	f := authz.QuotaFact{
		State: authz.QuotaOK, Limit: t.lease.Allowance, Remaining: t.left + t.lease.Free, ResetsAt: t.lease.Period.End,
	}
	if !t.lease.Period.Forever() {
		f.Window = t.lease.Period.End.Sub(t.lease.Period.Start)
	}
	switch {
	case f.Remaining == 0:
		f.State = authz.QuotaExhausted
	case f.Remaining < want:
		f.State = authz.QuotaInsufficient
	}
	return f
}

func (t *tap) unavailableLocked() authz.QuotaFact {
	return authz.QuotaFact{State: authz.QuotaUnavailable, Limit: t.limit.Units}
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
	if t.pending == nil {
		t.sizeLocked()
		t.pending = t.requestLocked()
		t.pending.Want = max(0, max(t.size, t.waiting)-t.left)
	}
	r, sent := *t.pending, t.d.now()
	t.d.goCall(func(ctx context.Context) {
		lease, err := t.send(ctx, r)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.answerLocked(r, lease, err, sent)
		t.flight, f.err = nil, err
		close(f.done)
	})
	return f
}

func (t *tap) send(ctx context.Context, r request) (Lease, error) {
	if r.isReturn {
		return Lease{}, t.d.ledger.Return(ctx, ReturnRequest{
			Node: r.Node, Seq: r.Seq, Bucket: r.Bucket, Limit: r.Limit, Held: r.Held, Spent: r.Spent, Units: r.back,
		})
	}
	return t.d.ledger.Lease(ctx, r.LeaseRequest)
}

// requestLocked moves what was spent into a new request.
func (t *tap) requestLocked() *request {
	r := &request{LeaseRequest: LeaseRequest{
		Node: t.d.node, Seq: t.d.seq.Add(1), Bucket: t.bucket, Limit: t.limit, Held: t.lease.Period, Spent: t.spent,
	}}
	t.spent = 0
	return r
}

// sizeLocked fits the size of the lease to how fast the last one was used up, within half of what is left, so that the
// last units are leased one by one and a crash forfeits little.
func (t *tap) sizeLocked() {
	room := t.limit.Units
	if !t.asked.IsZero() {
		room = t.lease.Free + t.left
		switch lasted := t.d.now().Sub(t.asked); {
		case t.left == 0 && lasted < fastLease:
			t.size *= 2
		case lasted > slowLease:
			t.size /= 2
		}
	} else if t.size == 0 {
		t.size = firstLease
	}
	t.size = max(1, min(t.size, room/2))
}

// answerLocked takes over the ledger's answer.
//
// What is in hand grows by what was granted and by nothing else: units that the ledger counts as ours and that we do
// not know of were handed out already. It shrinks to what the ledger counts as ours, less what was spent meanwhile.
func (t *tap) answerLocked(r request, lease Lease, err error, sent time.Time) {
	if err != nil {
		if k := authz.KindOf(err); k == authz.KindInvalid || k == authz.KindConflict {
			t.pending, t.asked, t.left = nil, time.Time{}, 0 // refused: start afresh
		}
		return
	}
	t.pending = nil
	if r.isReturn {
		t.asked = time.Time{}
		return
	}
	if !lease.Period.Same(t.lease.Period) {
		t.left, t.spent = 0, 0 // of a period that is over: it was granted there, and stays charged there
	}
	t.left = max(0, min(t.left+lease.Granted, lease.Held-t.spent))
	t.lease = lease
	t.until = sent.Add(lease.Until)
	t.asked = t.d.now()
}

// report makes a call even if nothing is needed.
func (t *tap) report(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flight != nil { // what it carries is older than what we were asked to report
		if err := t.callLocked(ctx, 0); err != nil {
			return err
		}
	}
	return t.callLocked(ctx, 0)
}

// idle reports whether nobody used the tap since the last call of idle.
func (t *tap) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.used
	t.used = false
	return !was
}

// retire gives everything back, after which the tap is dead. It returns false if the ledger did not take it, or if
// somebody came and uses the tap again.
func (t *tap) retire(ctx context.Context) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.flight != nil || t.pending != nil {
		if err := t.callLocked(ctx, 0); err != nil {
			return false
		}
	}
	if t.left > 0 || t.spent > 0 {
		t.pending = t.requestLocked()
		t.pending.isReturn, t.pending.back = true, t.left
		t.left = 0
		if err := t.callLocked(ctx, 0); err != nil {
			return false
		}
	}
	t.dead = t.left == 0 && t.spent == 0 && t.waiting == 0 && t.flight == nil && t.pending == nil
	return t.dead
}
