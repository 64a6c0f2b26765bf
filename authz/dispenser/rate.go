package dispenser

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/holding"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// rate is a node's share of one limit per second or minute. No ledger knows of it: what was used is known here until the period
// ends. Its methods may be called concurrently, and take no lock.
type rate struct {
	h      *holder
	count  string
	next   *rate // of the holder, nil for the last
	window atomic.Pointer[window]
	first  window // one object with the rate: see leaseCell
}

// newRate makes a rate in that period and adds it to those of the holder, whose lock guards that.
func newRate(h *holder, count string, p quota.Period) *rate {
	r := &rate{h: h, count: count, next: h.rates.Load(), first: window{start: p.Start.UnixNano(), end: p.End.UnixNano()}}
	r.window.Store(&r.first)
	if h.dead {
		r.window.Store(closed)
	}
	h.rates.Store(r)
	return r
}

// window is one period of a rate, by the node's clock.
type window struct {
	start, end int64        // Unix nanoseconds
	used       atomic.Int64 // units that were taken here or lent to other nodes
	borrowed   atomic.Int64 // units that other nodes lent
	asked      atomic.Int64 // when this node last asked the others, in Unix nanoseconds
}

// frozen is in used when the holder was put away: whoever still has the window finds nothing there, and asks for the one in use.
const frozen = math.MaxInt64 / 2

// closed is the window of a rate whose holder was put away.
var closed = func() *window {
	w := &window{end: math.MaxInt64}
	w.used.Store(frozen)
	return w
}()

// alive reports whether the holder has not been put away.
func (w *window) alive() bool { return w.used.Load() < frozen/2 }

// PutBack is authz.Source.
func (w *window) PutBack(_ string, units int64) { w.used.Add(-units) }

// at is the window that is running. A clock that goes back a little does not open a period again. If it seems to have gone back
// further, it is read once more: a request that was interrupted for long, as when the machine is suspended, has an old time, and
// what others used meanwhile would be forgotten.
func (r *rate) at(l *authz.Limit, now time.Time) *window {
	for {
		w, t := r.window.Load(), now.UnixNano()
		back := t < w.start-int64(quota.ClockJump)
		if back {
			now = r.h.d.now()
			t = now.UnixNano()
			back = t < w.start-int64(quota.ClockJump)
		}
		if w == closed || t < w.end && !back {
			return w
		}
		p := quota.PeriodAt(l, now)
		next := &window{start: p.Start.UnixNano(), end: p.End.UnixNano()}
		if r.window.CompareAndSwap(w, next) {
			return next
		}
	}
}

// cap is how many units of a limit of that many this node may use in the window.
func (r *rate) cap(w *window, units int64) int64 {
	return r.h.d.views.Load().share(units, w.start) + w.borrowed.Load()
}

// take takes units, and returns where they came from. If there are too few it returns nil and a fact that says why. It is not
// alive if the holder was put away.
func (r *rate) take(ctx context.Context, l *authz.Limit, units int64) (from authz.Source, f authz.QuotaFact, alive bool) {
	for {
		now := r.h.d.now()
		if err := r.h.d.attend(ctx, now); err != nil {
			return nil, unavailable(l), true
		}
		w := r.at(l, now)
		switch {
		case r.takeFrom(w, l, units):
			return w, r.fact(w, l, 0, authz.QuotaOK), true
		case !w.alive():
			return nil, f, false
		case !r.borrow(ctx, w, l, units, now):
			return nil, r.fact(w, l, units, ""), true
		}
	}
}

// takeFrom takes units from the share, all or none.
func (r *rate) takeFrom(w *window, l *authz.Limit, units int64) bool {
	for {
		used := w.used.Load()
		if used > r.cap(w, l.Units)-units {
			return false
		}
		if w.used.CompareAndSwap(used, used+units) {
			return true
		}
	}
}

// peek reports the state of the rate to a request that takes nothing now. It does not say that nothing is left before other
// nodes were asked. It is not alive if the holder was put away.
func (r *rate) peek(ctx context.Context, l *authz.Limit, now time.Time) (f authz.QuotaFact, alive bool) {
	if err := r.h.d.attend(ctx, now); err != nil {
		return unavailable(l), true
	}
	w := r.at(l, now)
	if w.used.Load() >= r.cap(w, l.Units) && w.alive() {
		r.borrow(ctx, w, l, 1, now)
	}
	return r.fact(w, l, 0, ""), w.alive()
}

// state is peek without asking anybody.
func (r *rate) state(l *authz.Limit, now time.Time) (f authz.QuotaFact, alive bool) {
	w := r.at(l, now)
	return r.fact(w, l, 0, ""), w.alive()
}

// fact describes the window to a request for that many units. The state is worked out if it is "".
func (r *rate) fact(w *window, l *authz.Limit, want int64, state authz.QuotaState) authz.QuotaFact {
	f := authz.QuotaFact{
		State: state, Limit: l.Units, Remaining: max(0, r.cap(w, l.Units)-w.used.Load()),
		ResetsAt: time.Unix(0, w.end).UTC(), Window: time.Duration(w.end - w.start),
	}
	switch {
	case state != "":
	case f.Remaining == 0:
		f.State = authz.QuotaExhausted
	case f.Remaining < want:
		f.State = authz.QuotaInsufficient
	default:
		f.State = authz.QuotaOK
	}
	return f
}

// borrow asks other nodes for units, unless they lent none within holding.Recheck, and reports whether they did. It asks for as
// many as this node's share has: whoever needs one unit will need another.
func (r *rate) borrow(ctx context.Context, w *window, l *authz.Limit, units int64, now time.Time) bool {
	d := r.h.d
	if d.views.Load().Nodes == 1 {
		return false
	}
	last, t := w.asked.Load(), now.UnixNano()
	if last != 0 && t-last < int64(holding.Recheck) && t >= last || !w.asked.CompareAndSwap(last, t) {
		return false
	}
	bucket, err := r.h.id.Bucket(r.count)
	if err != nil {
		return false
	}
	got := d.ledger.Borrow(ctx, d.node, quota.RateRequest{
		Bucket: bucket, Limit: *l, Start: time.Unix(0, w.start).UTC(), Units: max(units, r.cap(w, l.Units), l.Units/borrowsPart),
	})
	if got > 0 {
		w.borrowed.Add(got)
		w.asked.Store(0)
	}
	return got > 0
}

// lend gives up units of the share: up to half of what is left, and all of it if that is little.
func (r *rate) lend(q *quota.RateRequest, now time.Time) int64 {
	w := r.at(&q.Limit, now)
	if w.start != q.Start.UnixNano() {
		return 0
	}
	for {
		used := w.used.Load()
		left := r.cap(w, q.Limit.Units) - used
		n := min(q.Units, max(left/2, min(left, lendsAll)))
		if n <= 0 {
			return 0
		}
		if w.used.CompareAndSwap(used, used+n) {
			return n
		}
	}
}

// borrowsPart is the part of the limit that a node asks for which has just joined and has no share.
const borrowsPart = 16

// lendsAll is so few units that half of them is not worth another question.
const lendsAll = 4
