package dispenser

import (
	"context"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/holding"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// request is one call to the ledger: a lease, or the return of units.
type request struct {
	quota.LeaseRequest
	source   *source // whose units it is about
	low      int64   // with fewer units left it is time to ask again
	isReturn bool
	back     int64 // units that it returns
	// made is when the request was made, before it was first sent. The term of the lease counts from then, even if the
	// answer comes to a repetition: the ledger gives the first answer again, and counts from the first as well.
	made time.Time
}

// flight is one call to the ledger. Those who wait for it read err after done is closed.
type flight struct {
	done chan struct{}
	err  error
}

// recallLocked asks other nodes to give back what they hold, unless that was done within holding.Recheck. It reports whether it did,
// so that the ledger has to be asked again. It releases the lock while it waits.
func (b *bucketLease) recallLocked(ctx context.Context, now time.Time) bool {
	if b.elsewhere == 0 || now.Sub(b.recalled) < holding.Recheck {
		return false
	}
	b.recalled = now
	b.mu.Unlock()
	b.d.ledger.Recall(ctx, b.d.node, b.bucket)
	b.mu.Lock()
	return true
}

// callLocked has the ledger asked for that many units under a limit, or joins the call under way, and waits. It releases
// the lock while it waits.
func (b *bucketLease) callLocked(ctx context.Context, l *authz.Limit, units int64) error {
	b.waiting = min(quota.MaxUnits, b.waiting) + units
	f := b.startLocked(l)
	b.mu.Unlock()
	var err error
	select {
	case <-f.done:
		err = f.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	b.mu.Lock()
	b.waiting -= units
	return err
}

// flushLocked waits until every request that was made is answered. It releases the lock while it waits.
func (b *bucketLease) flushLocked(ctx context.Context, l *authz.Limit) error {
	for b.flight != nil || len(b.queue) > 0 {
		if err := b.callLocked(ctx, l, 0); err != nil {
			return err
		}
	}
	return nil
}

// startLocked starts a call unless one is under way.
func (b *bucketLease) startLocked(l *authz.Limit) *flight {
	if b.flight != nil {
		return b.flight
	}
	f := &flight{done: make(chan struct{})}
	b.flight = f
	if len(b.queue) == 0 {
		b.queue = append(b.queue, b.leaseLocked(l))
	}
	r := b.queue[0]
	b.d.goCall(func(ctx context.Context) {
		lease, err := b.d.send(ctx, r)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.answerLocked(r, lease, err)
		b.flight, f.err = nil, err
		close(f.done)
		if err == nil && len(b.queue) > 0 {
			b.startLocked(l)
		}
	})
	return f
}

// leaseLocked makes a request for more units. It reports what was spent.
func (b *bucketLease) leaseLocked(l *authz.Limit) request {
	size := b.sizeLocked(l)
	r := b.requestLocked(l)
	r.Want, r.low = min(quota.MaxUnits, max(0, max(size, b.waiting)-b.source.Load().Left())), size/4
	return r
}

func (b *bucketLease) requestLocked(l *authz.Limit) request {
	s := b.source.Load()
	return request{source: s, made: b.d.now(), LeaseRequest: quota.LeaseRequest{
		Node: b.d.node, Seq: b.d.seq.Add(1), Bucket: b.bucket, Limit: *l, Held: s.Period, Spent: s.Unreported(),
	}}
}

// returnLocked makes a request that returns everything that the node holds, nil if there is nothing to return or report.
func (b *bucketLease) returnLocked() *request {
	back := b.source.Load().Drain()
	r := b.requestLocked(b.limit.Load())
	if r.isReturn, r.back = true, back; r.back == 0 && r.Spent == 0 {
		return nil
	}
	r.source.Expire()
	return &r
}

// sizeLocked is how many units to hold: as many as last for a while at the speed at which the last ones were used up, within
// this node's share of what is left, so that the last units are leased in small change and a crash forfeits little. A node
// alone takes half.
func (b *bucketLease) sizeLocked(l *authz.Limit) int64 {
	s, room := b.source.Load(), l.Units
	if runsOut, lasted, asked := s.RunsOut(b.d.now()); asked {
		room = s.Remaining(l.Units)
		switch {
		case runsOut && lasted < fastLease:
			b.size *= 2
		case lasted > slowLease:
			b.size /= 2
		}
	} else if b.size == 0 {
		b.size = max(firstLease, room/firstShare)
	}
	least := int64(1)
	if b.nodes > 1 {
		least = leastShared
	}
	if room == 0 { // there may be units under another limit, for which the size has to stay
		return least
	}
	b.size = max(least, min(b.size, room/max(2, b.nodes)))
	return b.size
}

// answerLocked takes over the ledger's answer to the first request of the queue.
func (b *bucketLease) answerLocked(r request, lease quota.Lease, err error) {
	if k := authz.KindOf(err); err != nil && k != authz.KindInvalid && k != authz.KindConflict {
		return // it is unknown whether it took place: it is repeated
	}
	b.queue = b.queue[1:]
	switch s := b.source.Load(); {
	case err != nil: // it did not take place: the next request reports what this one would have
		r.source.Unreport(r.Spent)
		r.source.Restock(r.back)
	case r.isReturn: // the holding was changed when the request was made
	default:
		if !lease.Period.Same(s.Period) {
			if back := b.returnLocked(); back != nil { // units of the period that is over
				b.queue = append(b.queue, *back)
			}
			s = b.newSource(lease.Period)
		}
		s.Refill(lease, r.made, r.Limit.Units, r.low)
		b.nodes, b.elsewhere = lease.Nodes, lease.Elsewhere
		b.surrenderLocked(&r.Limit)
	}
}

// surrenderLocked has units given back that a lowered limit no longer grants. Requests under a limit of more units lease them
// again, so this is done at most once within holding.Recheck.
func (b *bucketLease) surrenderLocked(l *authz.Limit) {
	s, now := b.source.Load(), b.d.now()
	if s.Floor(l.Units) <= 0 || now.Sub(b.surrendered) < holding.Recheck {
		return
	}
	if back := s.GiveUp(s.Floor(l.Units)); back > 0 {
		b.surrendered = now
		r := b.requestLocked(l)
		r.isReturn, r.back = true, back
		b.queue = append(b.queue, r)
	}
}
