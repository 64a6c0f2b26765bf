package holding

import (
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// The methods of this file need the caller's lock. While they run, others take.

// change replaces the terms by a changed copy.
func (h *Holding) change(f func(*terms)) {
	t := *h.terms.Load()
	f(&t)
	h.store(t)
}

// store replaces the terms.
func (h *Holding) store(t terms) {
	if h.first == (terms{}) && t != (terms{}) { // nobody has a pointer to it yet
		h.first = t
		h.terms.Store(&h.first)
		return
	}
	h.terms.Store(&t)
}

// Refill takes over the answer to a lease request that was first sent at that time in that session, under a limit of that many units. The
// holding grows by what was granted and by nothing else: units that the ledger counts as this node's and that are not here
// were handed out before. It shrinks to what the ledger counts as this node's. With fewer than low units left it is time to
// ask for more.
func (h *Holding) Refill(l quota.Lease, sent Sent, limit, low int64) {
	h.drop(h.issued - h.reported - (l.Held - l.Granted))
	// The terms change after left shrank and before it grows, so that no request takes new units by the old count.
	h.store(terms{
		session:    sent.Session,
		asked:      h.session.at(sent.At), // the answer to a repeated request may be as old as its first sending
		askedUnder: limit, counted: l.Counted, credited: l.Credited, low: low,
	})
	h.issued += l.Granted
	h.left.Add(l.Granted)
}

// Drain takes out everything that is left, to be given back, and ends the lease.
func (h *Holding) Drain() int64 {
	h.change(func(t *terms) { t.session = 0 }) // first, so that no request takes what comes back late
	return h.GiveUp(h.left.Load())
}

// GiveUp takes out up to that many units, to be given back, and returns how many.
func (h *Holding) GiveUp(units int64) int64 {
	n := h.drop(units)
	h.change(func(t *terms) { t.counted -= n }) // after left shrank, as in Refill
	return n
}

// Restock takes back what GiveUp or Drain took out.
func (h *Holding) Restock(units int64) {
	h.change(func(t *terms) { t.counted += units })
	h.issued += units
	h.left.Add(units)
}

// drop takes out up to that many units and returns how many.
func (h *Holding) drop(units int64) int64 {
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

// Unreported is what was spent and not reported. From now on it counts as reported.
func (h *Holding) Unreported() int64 {
	// Below 0 are units that a request has put back and that were counted as taken when they were reported.
	spent := min(quota.MaxUnits, max(0, h.Spent()))
	h.reported += spent
	return spent
}

// Unreport takes back what Unreported said: the report did not take place.
func (h *Holding) Unreport(spent int64) { h.reported -= spent }

// Spent is how many units are taken and not reported.
func (h *Holding) Spent() int64 { return h.issued - h.left.Load() - h.reported }

// Overreported takes out what is left of units that were reported as spent, and returns how many those are: requests that came too
// late took them for a moment, and the report was made then. The ledger does not count them as held here, so they have to be refunded.
func (h *Holding) Overreported() int64 {
	n := h.drop(-h.Spent())
	h.reported -= n
	return n
}

// Restore puts back units that were taken. It returns false if they were reported as spent.
func (h *Holding) Restore(units int64) bool {
	if h.Spent() < units {
		return false
	}
	h.left.Add(units)
	return true
}

// Empty reports whether nothing is left and nothing has to be reported.
func (h *Holding) Empty() bool { return h.left.Load() == 0 && h.issued <= h.reported }

// Held is what the ledger counts as this node's: what is left here, and what was taken and not reported.
func (h *Holding) Held() int64 { return h.issued - h.reported }

// Taken is how many units were taken in all, less what was put back.
func (h *Holding) Taken() int64 { return h.issued - h.left.Load() }

// State is all that a Holding is, but for its period and its session, to be kept while nobody uses it.
type State struct {
	Left, Spent                        int64 // Spent was taken and not reported
	Session                            uint64
	Asked                              time.Time
	AskedUnder, Counted, Credited, Low int64
}

// Retire takes everything out. From then on nothing can be taken. Units that a request puts back late because of that stay
// behind: see Rest.
func (h *Holding) Retire() State {
	t := *h.terms.Load()
	gone := none
	h.terms.Store(&gone)
	left := h.drop(h.left.Load())
	spent := h.issued - h.reported // with what comes back late: who finds it there puts it back where this State is used
	return State{left, spent, t.session, h.session.time(t.asked), t.askedUnder, t.counted, t.credited, t.low}
}

// Rest takes out what requests put back after Retire.
func (h *Holding) Rest() int64 { return h.left.Swap(0) }

// Restart fills a new Holding with what another one was.
func (h *Holding) Restart(s State) {
	h.issued, h.reported = s.Left+s.Spent, 0
	h.store(terms{
		session: s.Session, asked: h.session.at(s.Asked), askedUnder: s.AskedUnder, counted: s.Counted, credited: s.Credited, low: s.Low,
	})
	h.left.Store(s.Left)
}
