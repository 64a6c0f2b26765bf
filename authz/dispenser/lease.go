package dispenser

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/holding"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// bucketLease is a node's share of one bucket: the units that it holds, and how it gets more.
//
// A request that finds enough units takes no lock. Everything else needs mu, which is never held during I/O. There is one
// call to the ledger at a time. A call whose answer was lost is repeated as it was before anything else is asked, so that the
// ledger counts it once.
type bucketLease struct {
	d      *Dispenser
	bucket quota.Bucket
	source atomic.Pointer[source]
	limit  atomic.Pointer[authz.Limit] // under which the bucket was used last
	used   atomic.Bool                 // since the last sweep

	mu          sync.Mutex
	dead        bool      // retired: use another bucketLease
	size        int64     // how many units to lease at once
	nodes       int64     // how many nodes share the bucket, this one included
	elsewhere   int64     // units that other nodes hold
	waiting     int64     // units for which requests wait
	recalled    time.Time // when this node last recalled units, or gave them back to a recall
	surrendered time.Time // when this node last gave back what a lowered limit no longer grants
	queue       []request // made and not answered; the first is the one that is sent
	flight      *flight   // the call that is under way, nil if none is
}

// source is the units that a node holds of a bucket for one period. Reservations take from it and may put back.
type source struct {
	holding.Holding
	lease *bucketLease
}

const (
	// firstLease is the least units of a bucket's first lease, and firstShare says which part of a large limit it is: little
	// is risked before it is known how busy the bucket is, and large limits are not leased in small change.
	firstLease, firstShare = 16, 200
	// leastShared is the smallest lease where several nodes share the bucket: smaller ones would cost a call for each of the
	// last units. What one node then lacks is recalled from another. A node alone takes down to one unit, so that a crash
	// forfeits little.
	leastShared = firstLease
	// A lease should last between these two, so that a crash forfeits what is used in a few seconds.
	fastLease, slowLease = 2 * time.Second, 20 * time.Second
)

func newBucketLease(d *Dispenser, bucket quota.Bucket, l *authz.Limit) *bucketLease {
	b := &bucketLease{d: d, bucket: bucket, nodes: 1}
	b.limit.Store(l)
	b.newSource(quota.Period{})
	return b
}

// newSource starts with an empty holding for that period.
func (b *bucketLease) newSource(p quota.Period) *source {
	s := &source{lease: b}
	s.Init(b.d.base, p)
	b.source.Store(s)
	return s
}

// adopt notes under which limit the bucket was used last. Calls for which no request waits are made under it.
func (b *bucketLease) adopt(l *authz.Limit) {
	if old := b.limit.Load(); old != l && *old != *l {
		b.limit.Store(l)
	}
	if !b.used.Load() {
		b.used.Store(true)
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
	b.mu.Lock() // "nothing is left" may be an answer of the ledger that is half taken over
	defer b.mu.Unlock()
	s = b.source.Load()
	return s.Fact(l, 0), s.Known(l.Units, now)
}

// warm has the ledger asked and does not wait. It returns false if the lease was retired.
func (b *bucketLease) warm(l *authz.Limit) (alive bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.dead {
		b.startLocked(l)
	}
	return !b.dead
}

// peek reports the state of the bucket under a limit, and asks the ledger for it if it has to. It is not alive if the lease
// was retired.
func (b *bucketLease) peek(ctx context.Context, l *authz.Limit) (f authz.QuotaFact, alive bool) {
	if f, known := b.glance(l, b.d.now()); known {
		return f, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for asked := false; !b.dead; asked = true {
		s := b.source.Load()
		if s.Known(l.Units, b.d.now()) || asked && s.AnsweredFor(l.Units) {
			return s.Fact(l, 0), true
		}
		if err := b.callLocked(ctx, l, 0); err != nil {
			s = b.source.Load()
			if s.Available(l.Units) == 0 || !s.AnsweredFor(l.Units) || !s.Good(b.d.now()) {
				return unavailable(l), !b.dead
			}
			return s.Fact(l, 0), !b.dead
		}
	}
	return f, false
}

// take takes units under a limit, and returns where they came from. If there are too few it returns nil and a fact that says
// why. It is not alive if the lease was retired.
func (b *bucketLease) take(ctx context.Context, l *authz.Limit, units int64) (from *source, f authz.QuotaFact, alive bool) {
	if s := b.source.Load(); s.Take(units, l.Units, b.d.now) {
		if s.Low(l.Units) {
			b.askAhead(l)
		}
		return s, taken(s, l), true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.dead {
		s := b.source.Load()
		if s.Take(units, l.Units, b.d.now) {
			return s, taken(s, l), true
		}
		now := b.d.now()
		answered := s.Answered(l.Units, now)
		short := answered && s.Remaining(l.Units) < units
		if short && !s.Outdated(now) && !b.recallLocked(ctx, now) {
			return nil, s.Fact(l, units), true
		}
		want := units
		if short || !answered && units > firstLease { // nothing is leased for a request that may cost more than there is
			want = 0
		}
		if err := b.callLocked(ctx, l, want); err != nil {
			return nil, unavailable(l), !b.dead
		}
	}
	return nil, f, false
}

// askAhead asks for more before the last unit is taken. No request waits for the answer.
func (b *bucketLease) askAhead(l *authz.Limit) {
	if !b.mu.TryLock() {
		return // another call is about to be made
	}
	defer b.mu.Unlock()
	if !b.dead && b.source.Load().Low(l.Units) {
		b.startLocked(l)
	}
}

// PutBack is authz.Source: it takes back units that were reserved and not used. Units that the ledger already knows as spent
// are refunded there.
func (s *source) PutBack(id string, units int64) {
	b := s.lease
	b.mu.Lock()
	restored := !b.dead && b.source.Load() == s && s.Restore(units)
	b.mu.Unlock()
	if !restored {
		b.d.refund(quota.SettleRequest{ID: id, Bucket: b.bucket, Limit: *b.limit.Load(), Period: s.Period, Estimate: units})
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
