package dispenser

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// atOnce is how many holders a sweep puts into one call to the ledger.
const atOnce = 256

// Sweep renews the node's session, gives back what callers who have become slower do not need, puts away the leases of those who
// did not come since the last sweep, gives back some of those that were put away long ago, and repeats refunds that did not get
// through. It stops at the first call that fails: the leases stay as they are.
func (d *Dispenser) Sweep(ctx context.Context) {
	renewal, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if d.renew(renewal) != nil || !d.restate(ctx) || d.retryRefunds(ctx) != nil {
		return
	}
	b := batch{d: d, ctx: ctx}
	for _, h := range d.holders.All() {
		if h.sweep() && !b.add(h) {
			return
		}
	}
	for _, id := range d.idle.old(d.now()) {
		if h := d.inUse(id); h != nil && h.returnAll() && !b.add(h) {
			return
		}
	}
	b.send()
}

// Run sweeps now, then every SweepEvery, and at once when a session begins or nodes joined or left, until ctx ends. So the node joins the
// others before the first check asks for anything.
func (d *Dispenser) Run(ctx context.Context) {
	t := time.NewTicker(SweepEvery)
	defer t.Stop()
	for {
		d.Sweep(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-d.begun:
		}
	}
}

// batch is calls for many holders, made at once: a store commits them together.
type batch struct {
	d    *Dispenser
	ctx  context.Context
	list []*holder
	err  error // the first
}

// add adds a holder whose flight is prepared. It returns false if the ledger is out of reach or ctx ends.
func (b *batch) add(h *holder) bool {
	b.list = append(b.list, h)
	return len(b.list) < atOnce || b.send()
}

// send makes the calls and waits for them. It returns false as add does.
func (b *batch) send() bool {
	list := b.list
	b.list = nil
	if len(list) == 0 {
		return true
	}
	flights := make([]*flight, len(list))
	for i, h := range list {
		flights[i] = h.flight // nobody changes it before it is answered
	}
	b.d.goCall(func(ctx context.Context) { b.d.exchange(ctx, list) })
	for _, f := range flights {
		var err error
		select {
		case <-f.done:
			err = f.err
		case <-b.ctx.Done():
			err = b.ctx.Err()
		}
		if err != nil && b.err == nil {
			b.err = err
		}
		if k := authz.KindOf(err); err != nil && k != authz.KindInvalid && k != authz.KindConflict {
			return false
		}
	}
	return true
}

// sweep is Dispenser.Sweep for one holder. It returns true if it has prepared a call.
func (h *holder) sweep() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return false
	}
	for b := h.leases.Load(); b != nil; b = b.next {
		b.taken = [2]int64{b.taken[1], b.source.Load().Taken()}
	}
	if h.flight != nil {
		return false
	}
	if len(h.queue) > 0 || h.askedLocked() {
		h.prepareLocked()
		return true
	}
	used, now := h.used.Swap(false), h.d.now()
	var r *request
	for b := h.leases.Load(); b != nil; b = b.next {
		if keep, less := b.needsLocked(now); less {
			if r == nil {
				r = h.newRequest()
			}
			b.returnLocked(r, keep)
		}
	}
	if r != nil && len(r.parts) > 0 {
		h.enqueueLocked(r)
		h.prepareLocked()
		return true
	}
	if !used {
		h.putAwayLocked()
	}
	return false
}

// needsLocked is how many units the caller's pace needs here, and whether the ledger has to be told: there are more, or a crash would
// refund what was spent.
func (b *bucketLease) needsLocked(now time.Time) (keep int64, less bool) {
	s, l := b.source.Load(), b.limit.Load()
	recent := b.taken[1] - b.taken[0] // since the last sweep: it is kept until the next, and then two intervals old
	if s.Over(now) {                  // it is returned when it is needed again, or when it has lain here for long
		return 0, false
	}
	keep = max(1, smallShare(s, l), recent)
	if s.Held() > keep {
		return keep, true
	}
	return s.Left() + 1, l.RefundOnCrash && s.Spent() > 0
}

// returnAll prepares a call that gives back all that the node holds. It returns false if there is nothing to give back or a call
// is under way.
func (h *holder) returnAll() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead || h.flight != nil {
		return false
	}
	if len(h.queue) == 0 {
		r := h.newRequest()
		for b := h.leases.Load(); b != nil; b = b.next {
			b.returnLocked(r, 0)
		}
		if len(r.parts) == 0 {
			return false
		}
		h.enqueueLocked(r)
	}
	h.prepareLocked()
	return true
}

const (
	// maxRefused is how often Close repeats what the ledger refused.
	maxRefused = 3
	// returning is how many batches Close has under way: while the ledger writes one, others are made.
	returning = 4
)

// returnAll returns all leases, until a call fails.
func (d *Dispenser) returnAll(ctx context.Context) error {
	idle, ctxIdle := errgroup.WithContext(ctx)
	idle.SetLimit(returning)
	for ids := range slices.Chunk(d.idle.all(), atOnce) {
		idle.Go(func() error {
			if ctxIdle.Err() != nil {
				return ctxIdle.Err()
			}
			var holders []*holder
			for _, id := range ids {
				if h := d.inUse(id); h != nil {
					holders = append(holders, h)
				}
			}
			return d.returnSome(ctxIdle, holders)
		})
	}
	if err := idle.Wait(); err != nil {
		return err
	}
	var all []*holder
	for _, h := range d.holders.All() {
		all = append(all, h)
	}
	inUse, ctxInUse := errgroup.WithContext(ctx)
	inUse.SetLimit(returning)
	for holders := range slices.Chunk(all, atOnce) {
		inUse.Go(func() error { return d.returnSome(ctxInUse, holders) })
	}
	return inUse.Wait()
}

// returnSome returns the leases of some holders and forgets these. What the ledger refuses did not take place, and is asked again.
func (d *Dispenser) returnSome(ctx context.Context, holders []*holder) error {
	for refused := 0; len(holders) > 0; {
		b := batch{d: d, ctx: ctx}
		for _, h := range holders {
			if err := h.land(ctx); err != nil {
				return err
			}
			if h.returnAll() {
				b.list = append(b.list, h)
			} else {
				h.forget()
			}
		}
		holders = b.list
		if b.send(); b.err != nil {
			refused++
		}
		if k := authz.KindOf(b.err); b.err != nil && (k == authz.KindUnavailable || refused == maxRefused) {
			return b.err
		}
	}
	return ctx.Err()
}

// land waits for the call that is under way.
func (h *holder) land(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.flight == nil {
		return nil
	}
	return h.waitLocked(ctx, h.flight)
}

// forget forgets a holder of which nothing is left here.
func (h *holder) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.restsLocked() {
		for b := h.leases.Load(); b != nil; b = b.next {
			if !b.source.Load().Empty() {
				return
			}
		}
		h.retireLocked()
	}
}

// restsLocked reports whether no call is under way, and none is to be made.
func (h *holder) restsLocked() bool {
	if h.dead || h.flight != nil || len(h.queue) > 0 {
		return false
	}
	for b := h.leases.Load(); b != nil; b = b.next {
		if b.waiting != 0 || b.asked != nil {
			return false
		}
	}
	return true
}

// report tells the ledger what was spent, and learns what changed there and what is left under that limit. It is not alive if
// the holder was put away.
func (h *holder) report(ctx context.Context, count string, l *authz.Limit) (alive bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.leaseOf(count)
	if h.dead || b == nil {
		return !h.dead, nil
	}
	if err := h.flushLocked(ctx); err != nil { // what these calls carry is older than what we were asked to report
		return true, err
	}
	b.surrendered = never // who asks for a report wants to see the units back
	if err := h.callLocked(ctx, b, l, 0); err != nil {
		return true, err
	}
	return true, h.flushLocked(ctx) // gives back units that the limit no longer grants
}

// giveBack returns what the node holds of a count, because another node has nothing left.
func (h *holder) giveBack(ctx context.Context, count string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.leaseOf(count)
	if h.dead || b == nil {
		return
	}
	b.recalled = h.d.moment(h.d.now()) // the others gave back as well: to ask them again would only send the last units around
	r := h.newRequest()
	if b.returnLocked(r, 0); len(r.parts) > 0 {
		h.enqueueLocked(r)
	}
	_ = h.flushLocked(ctx)
}

var _ quota.Peer = peer{}
