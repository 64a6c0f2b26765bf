package dispenser

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/holding"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// bucketLease is a node's share of one bucket: the units that it holds, and what it knows of the rest. Its methods that take a
// lock take the holder's.
type bucketLease struct {
	h      *holder
	count  string
	next   *bucketLease // of the holder, nil for the last
	source atomic.Pointer[source]
	limit  atomic.Pointer[authz.Limit] // under which the bucket was used last

	// The holder's lock guards these.
	asked       *authz.Limit // the ledger has to be asked under this limit; nil if not
	size        int64        // how many units to lease at once
	nodes       int64        // how many nodes share the holder, this one included
	elsewhere   int64        // units that other nodes hold
	reported    int64        // what the ledger has as spent by this node in the period
	withheld    bool         // the ledger granted nothing to anybody when it last answered
	waiting     int64        // units for which requests wait
	taken       [2]int64     // what source.Taken was at the last two sweeps
	recalled    moment       // when this node last recalled units, or gave them back to a recall
	surrendered moment       // when this node last gave back what a lowered limit no longer grants
}

// source is the units that a node holds of a bucket for one period. Reservations take from it and may put back.
type source struct {
	holding.Holding
	lease *bucketLease
}

// What a node holds of a bucket, and has not reported as spent, is what a crash strands. It is at most what the caller used in
// the last ten seconds, or a small part of the limit, or one unit.
const (
	smallPart = 100 // the part is 1/smallPart
	// leastShared is the smallest lease where several nodes share the holder, if that is no more than the small part: smaller ones
	// would cost a call for each of the last units. What one node then lacks is recalled from another.
	leastShared = 16
	// A lease that is used up faster than fastLease doubles: what was leased then was used within seconds. One that lasts longer
	// than slowLease shrinks to what is used in goodLease.
	fastLease, goodLease, slowLease = 2 * time.Second, 4 * time.Second, 5 * time.Second
)

// moment is an instant as the time since a dispenser was made, or never.
type moment int64

func (d *Dispenser) moment(t time.Time) moment { return moment(t.Sub(d.idle.began)) }

// within reports whether a moment is no longer ago than that. If it is to come, the clock was put back.
func (m moment) within(ago time.Duration, now moment) bool {
	return m != never && m <= now && time.Duration(now-m) < ago
}

// leaseCell is a lease with its first source, as one object: callers are many, and the garbage collector visits each.
type leaseCell struct {
	lease bucketLease
	first source
}

// newBucketLease makes a lease and adds it to those of the holder, whose lock guards that.
func newBucketLease(h *holder, count string, l *authz.Limit, p quota.Period) *bucketLease {
	c := &leaseCell{}
	b := &c.lease
	b.h, b.count, b.nodes, b.recalled, b.surrendered = h, count, 1, never, never
	b.limit.Store(l)
	c.first.lease = b
	c.first.Init(h.d.session, p)
	b.source.Store(&c.first)
	b.next = h.leases.Load()
	h.leases.Store(b)
	return b
}

// newSource starts with an empty holding for that period.
func (b *bucketLease) newSource(p quota.Period) *source {
	s := &source{lease: b}
	s.Init(b.h.d.session, p)
	b.source.Store(s)
	b.size, b.taken, b.reported = 0, [2]int64{}, 0
	return s
}

// bucket is the bucket of the lease.
func (b *bucketLease) bucket() quota.Bucket {
	out, err := b.h.id.Bucket(b.count)
	if err != nil { // the limit that made the lease was counted elsewhere
		out = quota.BucketOf(b.limit.Load(), authz.Holder{Key: b.h.id.Holder, Account: b.h.id.Holder})
	}
	return out
}

// adopt notes under which limit the bucket was used last. Calls for which no request waits are made under it.
func (b *bucketLease) adopt(l *authz.Limit) {
	if old := b.limit.Load(); old != l && *old != *l {
		b.limit.Store(l)
	}
}

// glance reports the state of the bucket under a limit, and false if the ledger has to be asked for it.
func (b *bucketLease) glance(l *authz.Limit, now time.Time) (f authz.QuotaFact, known bool) {
	s := b.source.Load()
	if !s.Known(l.Units, now) {
		return f, false
	}
	if f = s.Fact(l, 0); f.State == authz.QuotaOK {
		return f, true
	}
	b.h.mu.Lock() // "nothing is left" may be an answer of the ledger that is half taken over
	defer b.h.mu.Unlock()
	s = b.source.Load()
	return s.Fact(l, 0), s.Known(l.Units, now)
}

// peek reports the state of the bucket under a limit, and asks the ledger for it if it has to. It is not alive if the holder
// was put away.
func (b *bucketLease) peek(ctx context.Context, l *authz.Limit) (f authz.QuotaFact, alive bool) {
	h := b.h
	if f, known := b.glance(l, h.d.now()); known {
		return f, true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for asked := false; !h.dead; asked = true {
		s := b.source.Load()
		if s.Known(l.Units, h.d.now()) || asked && s.AnsweredFor(l.Units) {
			return s.Fact(l, 0), true
		}
		if err := h.callLocked(ctx, b, l, 0); err != nil {
			s = b.source.Load()
			if s.Available(l.Units) == 0 || !s.AnsweredFor(l.Units) || !s.Good(h.d.now()) {
				return unavailable(l), !h.dead
			}
			return s.Fact(l, 0), !h.dead
		}
	}
	return f, false
}

// take takes units under a limit, and returns where they came from. If there are too few it returns nil and a fact that says
// why. It is not alive if the holder was put away.
func (b *bucketLease) take(ctx context.Context, l *authz.Limit, units int64) (from *source, f authz.QuotaFact, alive bool) {
	h := b.h
	if s := b.source.Load(); s.Take(units, l.Units, h.d.now) {
		if s.Low(l.Units) {
			b.askAhead(l)
		}
		return s, taken(s, l), true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for !h.dead {
		s := b.source.Load()
		if s.Take(units, l.Units, h.d.now) {
			return s, taken(s, l), true
		}
		now := h.d.now()
		answered := s.Answered(l.Units, now)
		if b.withheld && answered && !s.Outdated(now) {
			return nil, unavailable(l), true
		}
		short := answered && s.Remaining(l.Units) < units
		if short && !s.Outdated(now) && !h.recallLocked(ctx, b, now) {
			return nil, s.Fact(l, units), true
		}
		if h.dead { // was put away during the recall
			break
		}
		want := units
		if short || !answered && units > max(1, l.Units/smallPart) { // nothing is leased for a request that may cost more than there is
			want = 0
		}
		if err := h.callLocked(ctx, b, l, want); err != nil {
			return nil, unavailable(l), !h.dead
		}
	}
	b.rescueLocked()
	return nil, f, false
}

// askAhead asks for more before the last unit is taken. No request waits for the answer.
func (b *bucketLease) askAhead(l *authz.Limit) {
	h := b.h
	if !h.mu.TryLock() {
		return // another call is about to be made
	}
	defer h.mu.Unlock()
	if s := b.source.Load(); !h.dead && s.Low(l.Units) && h.flight == nil && !(b.withheld && !s.Outdated(h.d.now())) {
		b.asked = l
		h.startLocked()
	}
}

// rescueLocked gives units to the holder that is in use, which this request has put back too late: into a lease that was
// put away meanwhile.
func (b *bucketLease) rescueLocked() {
	s := b.source.Load()
	if n := s.Rest(); n > 0 {
		h := b.h
		h.mu.Unlock()
		s.PutBack(h.d.newID(), n)
		h.mu.Lock()
	}
}

// PutBack is authz.Source: it takes back units that were reserved and not used. Units that the ledger already knows as spent
// are refunded there.
func (s *source) PutBack(id string, units int64) {
	for h := s.lease.h; h != nil; h = h.d.inUse(h.id) {
		h.mu.Lock()
		dead, restored := h.dead, false
		if b := h.leaseOf(s.lease.count); !dead && b != nil && b.source.Load().Period.Same(s.Period) {
			restored = b.source.Load().Restore(units)
		}
		h.mu.Unlock()
		if restored {
			return
		}
		if !dead {
			break
		}
	}
	s.refund(id, units)
}

// refund has the ledger take back units that it knows as spent.
func (s *source) refund(id string, units int64) {
	b := s.lease
	b.h.d.refund(quota.SettleRequest{ID: id, Bucket: b.bucket(), Limit: *b.limit.Load(), Period: s.Period, Estimate: units})
}

// refundOverLocked refunds units that are here, and that the ledger knows as spent. It comes before units are given back: the ledger
// would take those for others, and what is spent next would never be reported.
func (b *bucketLease) refundOverLocked(s *source) {
	if n := s.Overreported(); n > 0 {
		s.refund(b.h.d.newID(), n)
	}
}

// taken is the fact for a request that has just taken units. It is ok even for the last one.
func taken(s *source, l *authz.Limit) authz.QuotaFact {
	f := s.Fact(l, 0)
	f.State = authz.QuotaOK
	return f
}

func unavailable(l *authz.Limit) authz.QuotaFact {
	return authz.QuotaFact{State: authz.QuotaUnavailable, Limit: l.Units}
}
