package quota

import (
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Book is everything that a ledger knows about one bucket, and the arithmetic of the ledger's verbs on it. It does no
// I/O, reads no clock and takes no lock: a store loads a Book, applies one verb, and keeps it if the verb returned no
// error. A verb that returns an error has changed nothing. The zero Book is a bucket that nobody has used.
type Book struct {
	// Current is the period that is running and Previous the one before, kept for late reports. Prepaid is the page
	// of WindowNone. They stand apart so that no change of plan can lose a balance that was paid for.
	Current  *Page `json:"current,omitempty"`
	Previous *Page `json:"previous,omitempty"`
	Prepaid  *Page `json:"prepaid,omitempty"`
	// Seen is the last request of each node and its answer.
	Seen map[NodeID]Seen `json:"seen,omitempty"`
}

// Page is the count of one period. Always
//
//	Granted = Spent + Returned + what is Held
//	Granted - Returned <= Ceiling + Forgiven
type Page struct {
	Period Period `json:"period"`
	// Was is the period of the page before retime changed it. Nodes report what they hold by that name, and the clock may
	// come to it again.
	Was      Period             `json:"was,omitzero"`
	Credited int64              `json:"credited,omitempty"`
	Forgiven int64              `json:"forgiven,omitempty"`
	Granted  int64              `json:"granted"`
	Spent    int64              `json:"spent"`
	Returned int64              `json:"returned,omitempty"`
	Overage  int64              `json:"excess,omitempty"`
	Held     map[NodeID]Holding `json:"held,omitempty"`
	// Ceiling is the largest allowance under which units were granted. A plan that is lowered later lowers the
	// allowance below what is granted, and leaves the ceiling.
	Ceiling int64 `json:"ceiling,omitempty"`
}

// Holding is what one node has leased and not reported as spent.
type Holding struct {
	Units int64     `json:"units"`
	Until time.Time `json:"until"` // from then on the units are stranded
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

// Settle is Ledger.Settle at the instant now of the ledger's clock. That an ID is settled once is the store's business.
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
		// What is refunded may not have been reported as spent yet: Spent is below 0 until it is.
		back := min(r.Estimate-r.Actual, p.Granted-p.Returned)
		p.Spent -= back
		p.giveBack(back)
		// It may be what a reset forgave. It would be granted twice if it stayed forgiven as well.
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

// Credit is Ledger.Credit at the instant now of the ledger's clock. That an ID counts once is the store's business.
func (b *Book) Credit(r CreditRequest, now time.Time) error {
	if r.Units <= 0 || r.Units > MaxUnits {
		return authz.Errorf(authz.KindInvalid, "credit of %d units: units go from 1 to %d", r.Units, MaxUnits)
	}
	if err := checkLimit(&r.Limit); err != nil {
		return err
	}
	p := b.rollOver(&r.Limit, now) // which says no more than what the clock says, even when the credit is refused
	if p.Credited+r.Units > MaxUnits {
		return authz.Errorf(authz.KindInvalid, "credit of %d units: the balance would be above %d", r.Units, MaxUnits)
	}
	p.Credited += r.Units
	return nil
}

// Reset is Ledger.Reset at the instant now of the ledger's clock. That an ID counts once is the store's business.
func (b *Book) Reset(r ResetRequest, now time.Time) error {
	if r.Limit.Window == authz.WindowNone {
		return authz.Errorf(authz.KindInvalid, "%q is prepaid and is not reset: credit it instead", r.Limit.Name)
	}
	if err := checkLimit(&r.Limit); err != nil {
		return err
	}
	p := b.rollOver(&r.Limit, now)
	for node, h := range p.Held {
		if !h.Until.After(now) { // stranded: forgiven as spent, and so not to be had again by a node that comes back
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

// checkLimit refuses what no plan can say. Without it a limit that was never filled in would count in no period.
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

// Forgettable reports whether a new book would say the same as this one: every period of it is over, and with it the time
// in which something may be settled or asked again, and nothing was ever granted or credited that stays.
func (b *Book) Forgettable(now time.Time) bool {
	for _, p := range []*Page{b.Current, b.Previous} {
		if p != nil && !(p.Period.End.Add(SettleMemory).Before(now) && p.Was.End.Add(SettleMemory).Before(now)) {
			return false
		}
	}
	for _, seen := range b.Seen {
		if now.Sub(seen.At) <= seenMemory {
			return false
		}
	}
	p := b.Prepaid
	return p == nil || len(p.Held) == 0 && p.Granted == p.Returned && p.Spent == 0 && p.Credited == 0 && p.Forgiven == 0 && p.Overage == 0
}

// Split takes that count out of a book in which the counts of all limits of that name stood together, as they did before
// Bucket told them apart. It returns nil if the book has no such count.
func (b *Book) Split(bucket Bucket) *Book {
	if bucket.Window == authz.WindowNone {
		if b.Prepaid == nil {
			return nil
		}
		out := &Book{Prepaid: b.Prepaid, Seen: b.Seen}
		b.Prepaid = nil
		return out
	}
	if b.Current == nil {
		return nil
	}
	l := authz.Limit{Window: bucket.Window, Anchor: bucket.Anchor + 1}
	if bucket.Zone != "" {
		var err error
		if l.Zone, err = time.LoadLocation(bucket.Zone); err != nil {
			return nil
		}
	}
	if p := PeriodAt(&l, b.Current.Period.Start); !p.Same(b.Current.Period) || !p.End.Equal(b.Current.Period.End) {
		return nil
	}
	out := &Book{Current: b.Current, Previous: b.Previous, Seen: b.Seen}
	b.Current, b.Previous = nil, nil
	return out
}

// Empty reports whether the book has no counts.
func (b *Book) Empty() bool { return b.Current == nil && b.Previous == nil && b.Prepaid == nil }

// Early reports whether the book's period begins later than a clock can be off: the clock was wrong when it was opened. The
// next verb puts it right.
func (b *Book) Early(now time.Time) bool {
	return b.Current != nil && now.Before(b.Current.Period.Start.Add(-ClockJump))
}

// Check returns an error that names the first broken invariant of the book.
func (b *Book) Check() error {
	for _, p := range []*Page{b.Current, b.Previous, b.Prepaid} {
		if p == nil {
			continue
		}
		var held int64
		for node, h := range p.Held {
			if h.Units <= 0 {
				return authz.Errorf(authz.KindConflict, "period from %v: node %q holds %d", p.Period.Start, node, h.Units)
			}
			held += h.Units
		}
		if p.Granted != p.Spent+p.Returned+held {
			return authz.Errorf(authz.KindConflict, "period from %v: granted %d is not spent %d + returned %d + held %d",
				p.Period.Start, p.Granted, p.Spent, p.Returned, held)
		}
		if p.Returned < 0 || p.Returned > p.Granted || p.Forgiven < 0 || p.Forgiven > p.Granted-p.Returned {
			return authz.Errorf(authz.KindConflict, "period from %v: of %d granted, %d were returned and %d forgiven",
				p.Period.Start, p.Granted, p.Returned, p.Forgiven)
		}
		if p.Granted-p.Returned > p.Ceiling+p.Forgiven {
			return authz.Errorf(authz.KindConflict, "period from %v: granted %d - returned %d is more than the %d allowed + %d forgiven",
				p.Period.Start, p.Granted, p.Returned, p.Ceiling, p.Forgiven)
		}
	}
	return nil
}

// ClockJump is how far a clock may go back before the periods that it opened meanwhile are taken for a mistake.
const ClockJump = time.Minute

// rollOver makes the page of the period that is running the current one and returns it. A clock that goes back a little does
// not open a period again. Where the limit's window was changed, the page in hand becomes the page of the new period as
// long as the two overlap, and so the usage is carried over.
func (b *Book) rollOver(l *authz.Limit, now time.Time) *Page {
	p := b.running(l, now)
	for node, h := range p.Held { // no lease runs longer from now, unless the clock was wrong when it was granted
		if last := now.Add(LeaseTerm); h.Until.After(last) {
			p.Held[node] = Holding{Units: h.Units, Until: last}
		}
	}
	return p
}

func (b *Book) running(l *authz.Limit, now time.Time) *Page {
	if l.Window == authz.WindowNone {
		if b.Prepaid == nil {
			b.Prepaid = &Page{}
		}
		return b.Prepaid
	}
	switch next := PeriodAt(l, now); {
	case b.Current == nil:
		b.Current = &Page{Period: next}
	case b.Early(now):
		b.retime(next)
	case now.Before(b.Current.Period.Start):
	case next.Start.Before(b.Current.Period.End):
		b.Current.Period = next
	case next.overlaps(b.Current.Was): // it was the clock before that was wrong
		b.Current.Period = next
	default:
		b.Previous, b.Current = b.Current, &Page{Period: next}
	}
	return b.Current
}

// retime puts the current page, which a wrong clock opened in the future, into the period that is really running. What was
// used on it was used now, and so were the units of the page that it replaced. If it is the clock of now that is wrong,
// running puts the page back.
func (b *Book) retime(next Period) {
	p, q := b.Current, b.Previous
	p.Period, p.Was = next, p.Period
	if q == nil || !q.Period.overlaps(next) {
		return
	}
	b.Previous = nil
	p.Credited += q.Credited
	p.Forgiven += q.Forgiven
	p.Granted += q.Granted
	p.Spent += q.Spent
	p.Returned += q.Returned
	p.Ceiling += q.Ceiling
	p.addOverage(q.Overage)
	for node, h := range q.Held {
		p.hold(node, h.Units, h.Until)
	}
}

// pageOf returns the page on which something that happened in that period is booked, nil if it was dropped already.
func (b *Book) pageOf(held Period) *Page {
	if held.Forever() { // what was leased of prepaid credits is theirs, even if the limit has a period now
		return b.Prepaid
	}
	for _, p := range []*Page{b.Current, b.Previous} {
		if p != nil && (held.overlaps(p.Period) || held.overlaps(p.Was)) {
			return p
		}
	}
	return nil
}

// report books what a node spent and returns the page that it stands on, nil if that was dropped already.
func (b *Book) report(node NodeID, held Period, spent int64) *Page {
	p := b.pageOf(held)
	if p == nil || spent == 0 {
		return p
	}
	h := p.Held[node]
	booked := min(spent, h.Units)
	p.Spent += booked
	p.addOverage(spent - booked) // was refunded or reset under the node; said, never granted
	p.hold(node, -booked, h.Until)
	return p
}

// seen reports whether the node's request was answered before.
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

func (b *Book) remember(node NodeID, s Seen) {
	if b.Seen == nil {
		b.Seen = make(map[NodeID]Seen)
	}
	b.Seen[node] = s
	for n, old := range b.Seen {
		switch {
		case old.At.After(s.At): // by a clock that was wrong
			old.At = s.At
			b.Seen[n] = old
		case s.At.Sub(old.At) > seenMemory && !b.holds(n):
			delete(b.Seen, n)
		}
	}
}

// sharing counts the nodes that hold units or asked for some within LeaseTerm, that one included.
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

// grant counts units as handed out. Only the difference of Granted and Returned says anything, so the two are counted
// down together before years of leasing and returning a very large limit could overflow them.
func (p *Page) grant(units int64, l *authz.Limit) {
	if units > 0 {
		p.Ceiling = max(p.Ceiling, p.allowance(l))
	}
	p.Granted += units
	if p.Granted > MaxUnits {
		p.Granted, p.Returned = p.Granted-p.Returned, 0
	}
}

// giveBack returns units that are neither held nor spent any more. Never more comes back than went out: what a
// settlement refunded before the node reported it as spent is not given back a second time, and what was refunded is
// no longer forgiven.
func (p *Page) giveBack(units int64) {
	back := min(units, p.Granted-p.Returned)
	p.Returned += back
	p.Spent += units - back
	p.Forgiven = min(p.Forgiven, p.Granted-p.Returned)
}

// addOverage records what was used beyond everything that was granted.
func (p *Page) addOverage(units int64) { p.Overage = min(p.Overage+units, MaxUnits) }

func (p *Page) allowance(l *authz.Limit) int64 { return l.Units + p.Credited }

// counted is what counts against the limit's units. It is below 0 where more was credited than granted.
func (p *Page) counted() int64 { return p.Granted - p.Returned - p.Forgiven - p.Credited }

// free is what can still be granted. It is 0 when a change of plan lowered the allowance below what is granted.
func (p *Page) free(l *authz.Limit) int64 { return max(0, l.Units-p.counted()) }

// hold adds units to a node's holding, or takes them away, and forgets the node when it holds nothing.
func (p *Page) hold(node NodeID, units int64, until time.Time) {
	h := Holding{Units: p.Held[node].Units + units, Until: until}
	if h.Units == 0 {
		delete(p.Held, node)
		return
	}
	if p.Held == nil {
		p.Held = make(map[NodeID]Holding)
	}
	p.Held[node] = h
}

// lapse gives back what is held under leases that ran out, where the limit says so.
func (p *Page) lapse(l *authz.Limit, now time.Time) {
	if l.Window != authz.WindowNone || !l.RefundOnCrash {
		return
	}
	for node, h := range p.Held {
		if !h.Until.After(now) {
			delete(p.Held, node)
			p.giveBack(h.Units)
		}
	}
}

// stranded is what is held under leases that ran out.
func (p *Page) stranded(now time.Time) int64 {
	var n int64
	for _, h := range p.Held {
		if !h.Until.After(now) {
			n += h.Units
		}
	}
	return n
}

// elsewhere is what nodes other than that one hold under leases that run.
func (p *Page) elsewhere(node NodeID, now time.Time) int64 {
	var n int64
	for other, h := range p.Held {
		if other != node && h.Until.After(now) {
			n += h.Units
		}
	}
	return n
}
