package dispenser

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// holder is what a node has of the limits of one key or account.
//
// A request that finds enough units takes no lock. Everything else needs mu, which is never held during I/O. There is one
// call to the ledger at a time. A call whose answer was lost is repeated as it was before anything else is asked, so that the
// ledger counts it once.
type holder struct {
	d      *Dispenser
	id     quota.HolderID
	used   atomic.Bool                 // since the last sweep
	leases atomic.Pointer[bucketLease] // the first of a few
	rates  atomic.Pointer[rate]        // in the same way

	mu     sync.Mutex
	dead   bool       // put away or forgotten: ask the dispenser for the one in use
	queue  []*request // made and not answered; the first is the one that is sent
	flight *flight    // the call that is under way, nil if none is
	known             // what the ledger knows
}

// known is what the ledger knows of a holder, as far as this node was told.
type known struct {
	last    uint64 // Seq of the last request that took place, 0 for none
	session uint64 // in which the node last told all that it has
}

func newHolder(d *Dispenser, id quota.HolderID) *holder {
	id.Holder = strings.Clone(id.Holder) // it may be a part of something large
	return &holder{d: d, id: id}
}

// countOf names the count of a limit.
func countOf(l *authz.Limit) string {
	if l.Count != "" {
		return l.Count
	}
	return quota.BucketOf(l, authz.Holder{}).CountKey()
}

// lease is the node's share of the bucket in which the limit is counted.
func (h *holder) lease(l *authz.Limit) *bucketLease {
	count := countOf(l)
	b := h.leaseOf(count)
	if b == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		if b = h.leaseOf(count); b == nil {
			b = newBucketLease(h, count, l, quota.Period{})
		}
	}
	b.adopt(l)
	return b
}

// leaseOf is the share of a count, nil if the node has none.
func (h *holder) leaseOf(count string) *bucketLease {
	for b := h.leases.Load(); b != nil; b = b.next {
		if b.count == count {
			return b
		}
	}
	return nil
}

// rate is the node's share of a rate.
func (h *holder) rate(l *authz.Limit) *rate {
	count := countOf(l)
	r := h.rateOf(count)
	if r == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		if r = h.rateOf(count); r == nil {
			r = newRate(h, count, quota.PeriodAt(l, h.d.now()))
		}
	}
	return r
}

func (h *holder) rateOf(count string) *rate {
	for r := h.rates.Load(); r != nil; r = r.next {
		if r.count == count {
			return r
		}
	}
	return nil
}

// charge takes units from a limit, or reports its state if they are 0.
func (h *holder) charge(ctx context.Context, l *authz.Limit, units int64, r *authz.Reservation) (f authz.QuotaFact, alive bool) {
	if quota.IsRate(l) {
		share := h.rate(l)
		if units == 0 {
			return share.peek(ctx, l, h.d.now())
		}
		from, f, alive := share.take(ctx, l, units)
		if from != nil {
			r.Add(from, units)
		}
		return f, alive
	}
	b := h.lease(l)
	if units == 0 {
		return b.peek(ctx, l)
	}
	from, f, alive := b.take(ctx, l, units)
	if from != nil {
		r.Add(from, units)
	}
	return f, alive
}

// ask notes that the ledger has to be asked about a limit. It returns false if the holder is dead.
func (h *holder) ask(l *authz.Limit) (alive bool) {
	b := h.lease(l)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.dead && !(h.flight != nil && h.flight.about(b)) {
		b.asked = l
	}
	return !h.dead
}

// retireLocked forgets a holder of which the node has nothing left.
func (h *holder) retireLocked() {
	h.dead = true
	h.d.holders.Compute(h.id, func(at *holder, there bool) (*holder, xsync.ComputeOp) {
		if there && at == h {
			return nil, xsync.DeleteOp
		}
		return at, xsync.CancelOp
	})
}
