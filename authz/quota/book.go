package quota

import (
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Book is everything that a ledger knows about one bucket, and the arithmetic of the ledger's verbs on it. It does no
// I/O, reads no clock and takes no lock: a store loads a Book, applies one verb, and saves it if the verb returned no
// error. A verb that returns an error has changed nothing. The zero Book is a bucket that was never used.
type Book struct {
	// Current is the page of the running period. Previous is the page of the period before, kept for late reports. Prepaid
	// is the page of WindowNone. It is a page of its own so that no change of plan can lose a balance that was paid for.
	Current  *Page `json:"current,omitempty"`
	Previous *Page `json:"previous,omitempty"`
	Prepaid  *Page `json:"prepaid,omitempty"`
	// Seen is the last request of each node and its answer.
	Seen map[NodeID]Seen `json:"seen,omitempty"`
}

// Seen is the last request of one node.
type Seen struct {
	Seq   uint64    `json:"seq"`
	At    time.Time `json:"at"`
	Lease Lease     `json:"lease"`
}

// Lease is Ledger.Lease at the instant now of the ledger's clock.
func (b *Book) Lease(r LeaseRequest, now time.Time) (Lease, error) {
	if r.Want < 0 || r.Spent < 0 || r.Want > MaxUnits || r.Spent > MaxUnits {
		return Lease{}, authz.Errorf(authz.KindInvalid, "lease of %d units after %d spent: units go from 0 to %d", r.Want, r.Spent, MaxUnits)
	}
	if err := checkLimit(&r.Limit); err != nil {
		return Lease{}, err
	}
	if seen, again, err := b.seen(r.Node, r.Seq); again || err != nil {
		return seen.Lease, err
	}
	p := b.rollOver(&r.Limit, now)
	b.report(r.Node, r.Held, r.Spent)
	p.lapse(&r.Limit, now)

	got := min(r.Want, p.free(&r.Limit))
	p.grant(got, &r.Limit)
	p.hold(r.Node, got, now.Add(LeaseTerm))
	lease := Lease{
		Period: p.Period, Granted: got, Held: p.Held[r.Node].Units, Counted: p.counted(), Credited: p.Credited,
		Elsewhere: p.elsewhere(r.Node, now), Nodes: b.sharing(r.Node, now), Now: now, Until: LeaseTerm,
	}
	b.remember(r.Node, Seen{Seq: r.Seq, At: now, Lease: lease})
	return lease, nil
}

// Return is Ledger.Return at the instant now of the ledger's clock.
func (b *Book) Return(r ReturnRequest, now time.Time) error {
	if r.Units < 0 || r.Spent < 0 || r.Units > MaxUnits || r.Spent > MaxUnits {
		return authz.Errorf(authz.KindInvalid, "return of %d units after %d spent: units go from 0 to %d", r.Units, r.Spent, MaxUnits)
	}
	if err := checkLimit(&r.Limit); err != nil {
		return err
	}
	if _, again, err := b.seen(r.Node, r.Seq); again || err != nil {
		return err
	}
	b.rollOver(&r.Limit, now)
	if p := b.report(r.Node, r.Held, r.Spent); p != nil {
		h := p.Held[r.Node]
		back := min(r.Units, h.Units)
		p.hold(r.Node, -back, h.Until)
		p.giveBack(back)
	}
	b.remember(r.Node, Seen{Seq: r.Seq, At: now})
	return nil
}

// Settle is Ledger.Settle at the instant now of the ledger's clock. The store makes sure that an ID is settled once.
func (b *Book) Settle(r SettleRequest, now time.Time) (Settlement, error) {
	if r.Estimate < 0 || r.Actual < 0 || r.Estimate > MaxUnits || r.Actual > MaxUnits {
		return Settlement{}, authz.Errorf(authz.KindInvalid, "settlement of %d units for %d reserved: units go from 0 to %d", r.Actual, r.Estimate, MaxUnits)
	}
	if err := checkLimit(&r.Limit); err != nil {
		return Settlement{}, err
	}
	b.rollOver(&r.Limit, now)
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
		return Settlement{Refunded: back}, nil
	}
	more := r.Actual - r.Estimate
	charged := min(more, p.free(&r.Limit))
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

// Reset is Ledger.Reset at the instant now of the ledger's clock. The store makes sure that an ID counts once.
func (b *Book) Reset(r ResetRequest, now time.Time) error {
	if r.Limit.Window == authz.WindowNone {
		return authz.Errorf(authz.KindInvalid, "%q is prepaid and is not reset: credit it instead", r.Limit.Name)
	}
	if err := checkLimit(&r.Limit); err != nil {
		return err
	}
	p := b.rollOver(&r.Limit, now)
	for node, h := range p.Held {
		if !h.Until.After(now) { // stranded: forgiven as spent, so that a node that comes back cannot use them as well
			p.Spent += h.Units
			delete(p.Held, node)
		}
	}
	p.Forgiven = max(0, p.Spent)
	return nil
}

// Balance is the state of the bucket at the instant now of the ledger's clock.
func (b *Book) Balance(bucket Bucket, l authz.Limit, now time.Time) Balance {
	p := b.rollOver(&l, now)
	p.lapse(&l, now)
	out := Balance{
		Bucket: bucket, Period: p.Period, Allowance: p.allowance(&l), Forgiven: p.Forgiven, Granted: p.Granted,
		Spent: p.Spent, Returned: p.Returned, Stranded: p.stranded(now), Overage: p.Overage, Free: p.free(&l),
	}
	for node, h := range p.Held {
		if h.Until.After(now) && h.Units > 0 {
			if out.Outstanding == nil {
				out.Outstanding = make(map[NodeID]int64)
			}
			out.Outstanding[node] = h.Units
		}
	}
	return out
}

// checkLimit refuses limits that no plan can have. Without it an empty limit would count in no period.
func checkLimit(l *authz.Limit) error {
	switch l.Window {
	case authz.WindowSecond, authz.WindowMinute, authz.WindowHour, authz.WindowDay, authz.WindowMonth, authz.WindowNone:
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
	p.hold(node, -booked, h.Until)
	return p
}

// seen returns the node's last request if this is a repetition of it. An older request is refused.
func (b *Book) seen(node NodeID, seq uint64) (Seen, bool, error) {
	last, ok := b.Seen[node]
	if !ok || seq > last.Seq {
		return Seen{}, false, nil
	}
	if seq < last.Seq {
		return Seen{}, false, authz.Errorf(authz.KindConflict, "request %d of node %q comes after its request %d", seq, node, last.Seq)
	}
	return last, true, nil
}

// seenMemory is how long a node that holds nothing is remembered.
const seenMemory = time.Hour

// remember keeps the last request of a node, and forgets nodes that are gone.
func (b *Book) remember(node NodeID, s Seen) {
	if b.Seen == nil {
		b.Seen = make(map[NodeID]Seen)
	}
	b.Seen[node] = s
	for n, old := range b.Seen {
		switch {
		case old.At.After(s.At): // by a wrong clock
			old.At = s.At
			b.Seen[n] = old
		case s.At.Sub(old.At) > seenMemory && !b.holds(n):
			delete(b.Seen, n)
		}
	}
}

// sharing counts the nodes that were heard of within LeaseTerm, that one included: no other node has a lease that runs.
func (b *Book) sharing(node NodeID, now time.Time) int64 {
	n := int64(1)
	for other, seen := range b.Seen {
		if other != node && now.Sub(seen.At) < LeaseTerm {
			n++
		}
	}
	return n
}

func (b *Book) holds(node NodeID) bool {
	for _, p := range []*Page{b.Current, b.Prepaid} {
		if p != nil && p.Held[node].Units > 0 {
			return true
		}
	}
	return false
}
