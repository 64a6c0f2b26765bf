package holding

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// Recheck is how long "nothing is left" is believed before the ledger is asked again: other nodes may have returned units,
// or someone may have paid. It bounds how long a caller is refused while units lie idle: within Recheck before a refusal
// there was an instant at which the ledger had none to grant, and for each node that can be reached one at which it held
// none. The simulation of the dispenser checks both.
const Recheck = time.Second

// Holding is the units of one period that a node holds, with what the ledger said when it last answered. The methods that
// only read and Take may be called concurrently; all others need a lock of the caller's.
//
// Requests may take under different limits: keys of one account are on different plans, and a plan that is lowered leaves
// units here that it no longer grants. So each request says how many units its limit has, and leaves here what is counted
// beyond them: if 500 units are held and the ledger counts 500, a request under a limit of 10 may take only the first 10.
type Holding struct {
	Period quota.Period

	end     int64 // of the period, in Unix nanoseconds
	session *Session
	left    atomic.Int64 // units that can be taken while the lease is good
	terms   atomic.Pointer[terms]
	first   terms // the first that were stored, so that a caller who comes once needs no object for them

	// The caller's lock guards these two. What was spent and not reported is issued - left - reported.
	issued   int64 // units that were leased and not given back
	reported int64 // units that the ledger was told of as spent
}

// terms is what the ledger last said. It is replaced and never changed, so that whoever reads it sees one answer.
type terms struct {
	session    uint64      // the lease is good in that session only; 0 is none
	asked      sessionTime // when the ledger was asked; never: it was not, yet
	askedUnder int64       // the units of the limit that it answered for: others may have used up what fewer units grant
	counted    int64       // quota.Lease.Counted, less what was given back since
	credited   int64       // quota.Lease.Credited
	low        int64       // with fewer units left it is time to ask for more
}

// none is the terms of a holding without a lease.
var none = terms{asked: never, askedUnder: math.MaxInt64}

// New makes an empty holding for a period, of a node with that session.
func New(node *Session, p quota.Period) *Holding {
	h := new(Holding)
	h.Init(node, p)
	return h
}

// Init is New for a Holding that is part of something else.
func (h *Holding) Init(node *Session, p quota.Period) {
	h.session, h.Period, h.end = node, p, math.MaxInt64
	if !p.Forever() {
		h.end = p.End.UnixNano()
	}
	h.terms.Store(&none)
}

// Take takes units under a limit of that many. It returns false if there are too few, if the ledger has to be asked, or if
// the lease is over. The terms and the clock are read after the units were taken: a goroutine that is interrupted in between
// does not take from a lease that ended meanwhile, or by a count that rose.
func (h *Holding) Take(units, limit int64, now func() time.Time) bool {
	for {
		left := h.left.Load() - units
		if !h.terms.Load().allow(left, limit) {
			return false
		}
		if !h.left.CompareAndSwap(left+units, left) {
			continue
		}
		if t := h.terms.Load(); t.allow(left, limit) && h.good(t, now()) {
			return true
		}
		h.left.Add(units)
		return false
	}
}

// allow reports whether a limit of that many units may be used until so many are left.
func (t *terms) allow(left, limit int64) bool {
	return left >= max(0, t.counted-limit) && limit >= t.askedUnder
}

// Over reports whether the period is over.
func (h *Holding) Over(now time.Time) bool { return now.UnixNano() >= h.end }

// Good reports whether units may be taken: neither the session in which they were leased nor the period is over.
func (h *Holding) Good(now time.Time) bool { return h.good(h.terms.Load(), now) }

func (h *Holding) good(t *terms, now time.Time) bool {
	return h.session.Runs(t.session, now) && now.UnixNano() < h.end
}

// Left is how many units can be taken while the lease is good.
func (h *Holding) Left() int64 { return h.left.Load() }

// Floor is how many units a limit of that many units has to leave here. It is below 0 if the ledger has more to grant.
func (h *Holding) Floor(limit int64) int64 { return h.terms.Load().counted - limit }

// Credited is what was credited on top of the limit's units when the ledger last answered.
func (h *Holding) Credited() int64 { return h.terms.Load().credited }

// Available is how many units a limit of that many units can take here.
func (h *Holding) Available(limit int64) int64 { return max(0, h.left.Load()-max(0, h.Floor(limit))) }

// Remaining is what a limit of that many units still allows: what is left here and what the ledger has to grant.
func (h *Holding) Remaining(limit int64) int64 { return max(0, h.left.Load()-h.Floor(limit)) }

// Low reports whether it is time to ask for more units under a limit of that many.
func (h *Holding) Low(limit int64) bool {
	t := h.terms.Load()
	return h.left.Load() < t.low && t.counted < limit
}

// LowMark is with fewer than how many units left it is time to ask for more.
func (h *Holding) LowMark() int64 { return h.terms.Load().low }

// AskedSince reports whether the ledger was asked at that time or later.
func (h *Holding) AskedSince(t time.Time) bool { return h.terms.Load().asked > h.session.at(t) }

// RunsOut reports whether the last refill is about to be used up, and how long ago the ledger was asked for it. asked
// is false if it was not, yet.
func (h *Holding) RunsOut(now time.Time) (out bool, lasted time.Duration, asked bool) {
	t := h.terms.Load()
	return h.left.Load() <= t.low, h.session.since(now, t.asked), t.asked != never
}

// AnsweredFor reports whether the ledger has answered for a limit of that many units or fewer.
func (h *Holding) AnsweredFor(limit int64) bool { return h.terms.Load().askedUnder <= limit }

// Answered reports whether the ledger has said what there is under a limit of that many units, and the lease is good.
func (h *Holding) Answered(limit int64, now time.Time) bool {
	t := h.terms.Load()
	return t.asked != never && t.askedUnder <= limit && h.good(t, now)
}

// Outdated reports whether other nodes may have returned units, or someone paid, since the ledger was asked.
func (h *Holding) Outdated(now time.Time) bool {
	since := h.session.since(now, h.terms.Load().asked)
	return since >= Recheck || since < 0 // below 0: the clock was put back
}

// Known reports whether the state of a limit of that many units can be told without asking the ledger.
func (h *Holding) Known(limit int64, now time.Time) bool {
	return h.Answered(limit, now) && (h.Available(limit) > 0 || h.Floor(limit) >= 0 && !h.Outdated(now))
}

// Fact describes the state of a limit to a request for that many units.
func (h *Holding) Fact(l *authz.Limit, want int64) authz.QuotaFact {
	f := authz.QuotaFact{
		State: authz.QuotaOK, Limit: l.Units + h.terms.Load().credited, Remaining: h.Remaining(l.Units), ResetsAt: h.Period.End,
	}
	if !h.Period.Forever() {
		f.Window = h.Period.End.Sub(h.Period.Start)
	}
	switch {
	case f.Remaining == 0:
		f.State = authz.QuotaExhausted
	case f.Remaining < want:
		f.State = authz.QuotaInsufficient
	}
	return f
}
