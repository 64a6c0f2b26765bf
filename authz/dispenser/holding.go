package dispenser

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// holding is the units of one period that a node has in holding. Taking from it is a few atomic operations.
//
// Those who take may be held to different units of the limit: keys of one account are on different plans, and a plan that
// is lowered leaves units in holding that it does not grant any more. So each take says under which units it takes, and
// leaves in holding what is counted beyond them: of 500 units in holding after which the ledger counts 500, a limit of 10 may
// take the first 10.
type holding struct {
	lease  *bucketLease
	period quota.Period
	end    int64     // when the period ends, in Unix nanoseconds
	base   time.Time // from which the term is counted: any instant before, with a monotonic part

	left     atomic.Int64 // units that can be taken while the lease is good
	until    atomic.Int64 // when the lease runs out, in nanoseconds from base; steps of the wall clock do not count
	low      atomic.Int64 // with fewer left it is time to ask for more
	counted  atomic.Int64 // Lease.Counted when the ledger last answered, less what was given back since
	credited atomic.Int64 // Lease.Credited
	// under is the units of the limit that the ledger last answered for. Under fewer units nothing is taken before it is
	// asked again: a limit that was lowered may be used up elsewhere.
	under atomic.Int64
	asked atomic.Int64 // when the ledger was asked for what it last answered, in Unix nanoseconds; 0: that is out of date

	// The tap's lock guards these two. What was spent and not reported is issued - left - reported.
	issued   int64 // units that came in and were not given back
	reported int64 // units that were told to the ledger as spent
}

// newHolding makes an empty hand, under no lease, for that period.
func newHolding(t *bucketLease, p quota.Period) *holding {
	h := &holding{lease: t, period: p, end: math.MaxInt64, base: t.d.base}
	h.until.Store(math.MinInt64)
	h.under.Store(math.MaxInt64)
	if !p.Forever() {
		h.end = p.End.UnixNano()
	}
	return h
}

// good reports whether units may be taken: the lease has not run out, and neither has the period.
func (h *holding) good(now time.Time) bool {
	return int64(now.Sub(h.base)) < h.until.Load() && now.UnixNano() < h.end
}

// floor is how many units have to stay in hand under a limit of that many units, below 0 if none and the ledger has more.
func (h *holding) floor(limit int64) int64 { return h.counted.Load() - limit }

// open reports whether a limit of that many units leaves something to take.
func (h *holding) open(limit int64) bool { return h.left.Load() > max(0, h.floor(limit)) }

// take takes units under a limit of that many, and returns false if there are too few, if the ledger has to be asked, or if
// the lease is over. The clock and the count are read after the units were taken: whoever is held up in between does not
// take from a lease that ended meanwhile, or by a count that rose.
func (h *holding) take(units, limit int64, now func() time.Time) bool {
	var left int64
	for {
		left = h.left.Load() - units
		if left < max(0, h.floor(limit)) || limit < h.under.Load() {
			return false
		}
		if h.left.CompareAndSwap(left+units, left) {
			break
		}
	}
	if left >= h.floor(limit) && limit >= h.under.Load() && h.good(now()) {
		return true
	}
	h.left.Add(units)
	return false
}

// PutBack is authz.Source: units come back that were taken and not used. If the ledger knows them as spent already, they are
// refunded there.
func (h *holding) PutBack(id string, units int64) {
	if t := h.lease; !t.undo(h, units) {
		t.d.refund(quota.SettleRequest{ID: id, Bucket: t.bucket, Limit: *t.limit.Load(), Period: h.period, Estimate: units})
	}
}

// drain takes everything that is left and ends the lease, so that nobody takes any more. The tap's lock is held.
func (h *holding) drain() int64 {
	h.until.Store(math.MinInt64)
	left := h.left.Swap(0)
	h.issued -= left
	h.counted.Add(-left)
	return left
}

// giveUp takes up to that many units out of the hand to be given back, and returns how many. The tap's lock is held.
func (h *holding) giveUp(units int64) int64 {
	n := h.drop(units)
	h.counted.Add(-n) // after left shrank, as in refill
	return n
}

// restock takes back what giveUp or drain took out. The tap's lock is held.
func (h *holding) restock(units int64) {
	h.counted.Add(units)
	h.issued += units
	h.left.Add(units)
}

// drop takes up to that many units out of the hand, and returns how many. The tap's lock is held.
func (h *holding) drop(units int64) int64 {
	for {
		left := h.left.Load()
		n := min(units, left)
		if n <= 0 {
			return 0
		}
		if h.left.CompareAndSwap(left, left-n) {
			h.issued -= n
			return n
		}
	}
}

// unreported is what was spent and not reported, which it counts as reported from now on. It is never below 0: units
// that somebody took and put back may be missing from the count for a moment. The tap's lock is held.
func (h *holding) unreported() int64 {
	spent := min(quota.MaxUnits, max(0, h.issued-h.left.Load()-h.reported))
	h.reported += spent
	return spent
}

// restore puts units back that were taken, and returns false if they were reported as spent already. The tap's lock is
// held.
func (h *holding) restore(units int64) bool {
	if h.issued-h.left.Load()-h.reported < units {
		return false
	}
	h.left.Add(units)
	return true
}

// refill takes over the answer to a lease that was sent at that time, under a limit of that many units. What is in hand
// grows by what was granted and by nothing else: units that the ledger counts as ours and that we do not know of were
// handed out already. It shrinks to what the ledger counts as ours. The tap's lock is held.
func (h *holding) refill(l quota.Lease, sent time.Time, limit int64) {
	h.drop(h.issued - h.reported - (l.Held - l.Granted))
	h.credited.Store(l.Credited)
	h.counted.Store(l.Counted) // after left shrank and before it grows, so that nobody takes new units by the old count
	h.issued += l.Granted
	h.left.Add(l.Granted)
	h.under.Store(limit)
	h.until.Store(int64(sent.Add(l.Until).Sub(h.base)))
	h.asked.Store(sent.UnixNano()) // an answer to a repetition may be as old as that
}

// remaining is what can still be had under a limit of that many units: in hand, and of the ledger.
func (h *holding) remaining(limit int64) int64 { return max(0, h.left.Load()-h.floor(limit)) }

// fact describes the state of the limit to a caller who wants that many units.
func (h *holding) fact(l *authz.Limit, want int64) authz.QuotaFact {
	f := authz.QuotaFact{
		State: authz.QuotaOK, Limit: l.Units + h.credited.Load(), Remaining: h.remaining(l.Units), ResetsAt: h.period.End,
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

// taken is the fact for a caller who has just taken units, which is good even for the last one.
func (h *holding) taken(l *authz.Limit) authz.QuotaFact {
	f := h.fact(l, 0)
	f.State = authz.QuotaOK
	return f
}
