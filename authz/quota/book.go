package quota

import (
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Instant is the ledger's clock, whose sessions run by it, and whether the ledger withholds (Roll.Withholds).
type Instant struct {
	Time     time.Time
	Alive    func(NodeID) bool
	Withhold bool
}

// Book is what a ledger knows about one bucket, and the arithmetic of the ledger's verbs on it. It does no I/O, reads no clock
// and takes no lock: a store loads a Record, applies one verb to it or to one of its Books, and saves it if the verb returned no
// error. A verb that returns an error has changed nothing. The zero Book is a bucket that was never used.
type Book struct {
	// Current is the page of the running period. Previous is the page of the period before, kept for late reports. Prepaid is the
	// page of a bucket without a window, which has no other: only a book of an older version, which several buckets share, has all
	// three (Split).
	Current  *Page `json:"current,omitempty"`
	Previous *Page `json:"previous,omitempty"`
	Prepaid  *Page `json:"prepaid,omitempty"`
}

// check returns an error if the numbers of a part cannot be those of a request.
func (r *LeasePart) check() error {
	for _, n := range []int64{r.Spent, r.Back, r.Want, r.Known.Units} {
		if n < 0 || n > MaxUnits {
			return authz.Errorf(authz.KindInvalid, "lease of %d units after %d spent and %d given back: units go from 0 to %d", r.Want, r.Spent, r.Back, MaxUnits)
		}
	}
	return checkLimit(&r.Limit)
}

// lease applies a part that has passed its check. behind says that the ledger has lost what the node knows.
func (b *Book) lease(node NodeID, r *LeasePart, behind bool, at Instant) (p *Page, granted int64) {
	p = b.rollOver(&r.Limit, at.Time)
	if behind {
		if of := b.pageOf(r.Held); of != nil {
			of.restate(node, r.Known)
		}
	}
	if held := b.report(node, r.Held, r.Spent); held != nil {
		back := min(r.Back, held.Held[node].Units)
		held.hold(node, -back)
		held.giveBack(back)
	}
	p.lapse(&r.Limit, at)
	if !at.Withhold {
		granted = min(r.Want, p.free(&r.Limit))
	}
	p.grant(granted, &r.Limit)
	p.hold(node, granted)
	p.forget(at)
	return p, granted
}

// Settle is Ledger.Settle at that instant. The store makes sure that an ID is settled once.
func (b *Book) Settle(r SettleRequest, at Instant) (Settlement, error) {
	if r.Estimate < 0 || r.Actual < 0 || r.Estimate > MaxUnits || r.Actual > MaxUnits {
		return Settlement{}, authz.Errorf(authz.KindInvalid, "settlement of %d units for %d reserved: units go from 0 to %d", r.Actual, r.Estimate, MaxUnits)
	}
	if err := checkLimit(&r.Limit); err != nil {
		return Settlement{}, err
	}
	b.rollOver(&r.Limit, at.Time)
	p := b.pageOf(r.Period)
	if p == nil {
		return Settlement{}, nil
	}
	if r.Actual <= r.Estimate {
		// The node may not have reported these units as spent yet. Spent can be below 0 until it does.
		back := min(r.Estimate-r.Actual, p.Granted-p.Returned)
		p.Spent -= back
		p.giveBack(back)
		// A reset may have forgiven these units. They would be granted twice if they stayed forgiven.
		p.Forgiven = max(0, p.Forgiven-back)
		if h, ok := p.Held[r.Node]; ok {
			h.Spent -= back // may be below 0 until it reports
			p.Held[r.Node] = h
		}
		return Settlement{Refunded: back}, nil
	}
	more := r.Actual - r.Estimate
	var charged int64
	if !at.Withhold {
		charged = min(more, p.free(&r.Limit))
	}
	p.grant(charged, &r.Limit)
	p.Spent += charged
	p.addOverage(more - charged)
	return Settlement{Charged: charged, Overage: more - charged}, nil
}

// Credit is Ledger.Credit at the instant now of the ledger's clock. The store makes sure that an ID counts once.
func (b *Book) Credit(r CreditRequest, now time.Time) error {
	if r.Units <= 0 || r.Units > MaxUnits {
		return authz.Errorf(authz.KindInvalid, "credit of %d units: units go from 1 to %d", r.Units, MaxUnits)
	}
	if err := checkLimit(&r.Limit); err != nil {
		return err
	}
	p := b.rollOver(&r.Limit, now) // changes nothing that the clock would not, so a refused credit changes nothing
	if p.Credited+r.Units > MaxUnits {
		return authz.Errorf(authz.KindInvalid, "credit of %d units: the balance would be above %d", r.Units, MaxUnits)
	}
	p.Credited += r.Units
	return nil
}

// Reset is Ledger.Reset at that instant. The store makes sure that an ID counts once.
func (b *Book) Reset(r ResetRequest, at Instant) error {
	if r.Limit.Window == authz.WindowNone {
		return authz.Errorf(authz.KindInvalid, "%q is prepaid and is not reset: credit it instead", r.Limit.Name)
	}
	if err := checkLimit(&r.Limit); err != nil {
		return err
	}
	p := b.rollOver(&r.Limit, at.Time)
	for node, h := range p.Held {
		if !at.Alive(node) { // stranded: forgiven as spent, so that a node that comes back cannot use them as well
			p.Spent += h.Units
			delete(p.Held, node)
		}
	}
	p.Forgiven = max(0, p.Spent)
	return nil
}

// Release is Ledger.Release at that instant. The store makes sure that an ID counts once.
func (b *Book) Release(r ReleaseRequest, at Instant) error {
	if err := checkLimit(&r.Limit); err != nil {
		return err
	}
	p := b.rollOver(&r.Limit, at.Time)
	h := p.Held[r.Node]
	switch {
	case r.Units < 0:
		return authz.Errorf(authz.KindInvalid, "release of %d units: units go from 0", r.Units)
	case at.Alive(r.Node):
		return authz.Errorf(authz.KindConflict, "node %q is alive: what it holds is not stranded", r.Node)
	case h.Units == 0 || h.Units < r.Units:
		return authz.Errorf(authz.KindConflict, "%d units of node %q are stranded, not %d", h.Units, r.Node, r.Units)
	}
	delete(p.Held, r.Node)
	p.Spent += h.Units - r.Units
	p.giveBack(r.Units)
	return nil
}

// Balance is the state of the bucket at that instant.
func (b *Book) Balance(bucket Bucket, l authz.Limit, at Instant) Balance {
	p := b.rollOver(&l, at.Time)
	p.lapse(&l, at)
	out := Balance{
		Bucket: bucket, Period: p.Period, Allowance: p.allowance(&l), Forgiven: p.Forgiven, Granted: p.Granted,
		Spent: p.Spent, Returned: p.Returned, Overage: p.Overage, Free: p.free(&l),
	}
	for node, h := range p.Held {
		switch {
		case h.Units == 0:
		case !at.Alive(node):
			out.Stranded += h.Units
		default:
			if out.Outstanding == nil {
				out.Outstanding = make(map[NodeID]int64)
			}
			out.Outstanding[node] = h.Units
		}
	}
	return out
}

// Stranded calls each for the prepaid units of nodes that are gone, until it returns false.
func (b *Book) Stranded(bucket Bucket, at Instant, each func(Stranding) bool) bool {
	if b.Prepaid == nil {
		return true
	}
	for node, h := range b.Prepaid.Held {
		if h.Units > 0 && !at.Alive(node) && !each(Stranding{bucket, node, h.Units, h.Spent}) {
			return false
		}
	}
	return true
}

// checkLimit refuses rates, and limits that no plan can have. Without it an empty limit would count in no period.
func checkLimit(l *authz.Limit) error {
	switch l.Window {
	case authz.WindowHour, authz.WindowDay, authz.WindowMonth, authz.WindowNone:
	case authz.WindowSecond, authz.WindowMinute:
		return authz.Errorf(authz.KindInvalid, "limit %q counts per %s: such a rate is kept in memory, and starts over by itself", l.Name, l.Window)
	default:
		return authz.Errorf(authz.KindInvalid, "limit %q has no window called %q", l.Name, l.Window)
	}
	if l.Units < 0 || l.Units > MaxUnits {
		return authz.Errorf(authz.KindInvalid, "limit %q of %d units: units go from 0 to %d", l.Name, l.Units, MaxUnits)
	}
	return nil
}

// report books what a node spent and returns the page that counts it, nil if it was dropped.
func (b *Book) report(node NodeID, held Period, spent int64) *Page {
	p := b.pageOf(held)
	if p == nil || spent == 0 {
		return p
	}
	h := p.Held[node]
	booked := min(spent, h.Units)
	p.Spent += booked
	p.addOverage(spent - booked) // was refunded or reset before the node reported it
	if booked > 0 {
		p.Held[node] = Holding{h.Units - booked, h.Spent + booked}
	}
	return p
}
