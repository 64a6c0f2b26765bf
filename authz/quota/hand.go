package quota

import (
	"math"
	"sync/atomic"
	"time"
)

// hand is the units of one period that a node has in hand. Taking from it is a few atomic operations.
type hand struct {
	tap    *tap
	period Period
	end    int64     // when the period ends, in Unix nanoseconds
	base   time.Time // from which the term is counted: any instant before, with a monotonic part

	left      atomic.Int64 // units that can be taken while the lease is good
	until     atomic.Int64 // when the lease runs out, in nanoseconds from base; steps of the wall clock do not count
	low       atomic.Int64 // with fewer left it is time to ask for more
	free      atomic.Int64 // what the ledger could still grant when it last answered
	allowance atomic.Int64
	asked     atomic.Int64 // when the ledger was asked for what it last answered, in Unix nanoseconds; 0: that is out of date

	// The tap's lock guards these two. What was spent and not reported is issued - left - reported.
	issued   int64 // units that came in and were not given back
	reported int64 // units that were told to the ledger as spent
}

// newHand makes an empty hand, under no lease, for that period.
func newHand(t *tap, p Period) *hand {
	h := &hand{tap: t, period: p, end: math.MaxInt64, base: t.d.base}
	h.until.Store(math.MinInt64)
	if !p.Forever() {
		h.end = p.End.UnixNano()
	}
	return h
}

// good reports whether units may be taken: the lease has not run out, and neither has the period.
func (h *hand) good(now time.Time) bool {
	return int64(now.Sub(h.base)) < h.until.Load() && now.UnixNano() < h.end
}

// take takes units, and returns false if there are too few or the lease is over. The clock is read after the units were
// taken: whoever is held up in between does not take from a lease that ended meanwhile.
func (h *hand) take(units int64, now func() time.Time) bool {
	for {
		left := h.left.Load()
		if left < units {
			return false
		}
		if h.left.CompareAndSwap(left, left-units) {
			break
		}
	}
	if h.good(now()) {
		return true
	}
	h.left.Add(units)
	return false
}

// PutBack is authz.Source: units come back that were taken and not used. If the ledger knows them as spent already, they are
// refunded there.
func (h *hand) PutBack(id string, units int64) {
	if t := h.tap; !t.undo(h, units) {
		t.d.refund(SettleRequest{ID: id, Bucket: t.bucket, Limit: *t.limit.Load(), Period: h.period, Estimate: units})
	}
}

// drain takes everything that is left and ends the lease, so that nobody takes any more. The tap's lock is held.
func (h *hand) drain() int64 {
	h.until.Store(math.MinInt64)
	left := h.left.Swap(0)
	h.issued -= left
	return left
}

// unreported is what was spent and not reported, which it counts as reported from now on. It is never below 0: units
// that somebody took and put back may be missing from the count for a moment. The tap's lock is held.
func (h *hand) unreported() int64 {
	spent := max(0, h.issued-h.left.Load()-h.reported)
	h.reported += spent
	return spent
}

// restore puts units back that were taken, and returns false if they were reported as spent already. The tap's lock is
// held.
func (h *hand) restore(units int64) bool {
	if h.issued-h.left.Load()-h.reported < units {
		return false
	}
	h.left.Add(units)
	return true
}

// refill takes over the answer to a lease that was sent at that time. What is in hand grows by what was granted and by
// nothing else: units that the ledger counts as ours and that we do not know of were handed out already. It shrinks to
// what the ledger counts as ours. The tap's lock is held.
func (h *hand) refill(l Lease, sent time.Time) {
	h.issued += l.Granted
	h.left.Add(l.Granted)
	for drop := h.issued - h.reported - l.Held; drop > 0; {
		left := h.left.Load()
		n := min(drop, left)
		if n == 0 {
			break
		}
		if h.left.CompareAndSwap(left, left-n) {
			h.issued -= n
			drop -= n
		}
	}
	h.free.Store(l.Free)
	h.allowance.Store(l.Allowance)
	h.until.Store(int64(sent.Add(l.Until).Sub(h.base)))
	h.asked.Store(sent.UnixNano()) // an answer to a repetition may be as old as that
}
