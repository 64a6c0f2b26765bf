package quota

import (
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// ClockJump is how far a clock may go back before the periods that it opened meanwhile count as a mistake.
const ClockJump = time.Minute

// Early reports whether the book's period begins so far in the future that the clock must have been wrong when it was opened.
// The next verb corrects it.
func (b *Book) Early(now time.Time) bool {
	return b.Current != nil && now.Before(b.Current.Period.Start.Add(-ClockJump))
}

// rollOver makes the page of the running period the current one and returns it. A clock that goes back a little does not open
// a period again. If the running period is cut differently than the current page, because the rules of a time zone were changed,
// the page becomes that of the new period as long as the two overlap: what was used stays counted. (A limit with another window,
// zone or anchor is counted in another bucket.)
func (b *Book) rollOver(l *authz.Limit, now time.Time) *Page {
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
	case now.Before(b.Current.Period.Start): // the clock went back a little
	case next.Start.Before(b.Current.Period.End):
		b.Current.Period = next
	case next.overlaps(b.Current.Was): // the clock was wrong when retime moved the page
		b.Current.Period = next
	default:
		b.Previous, b.Current = b.Current, &Page{Period: next}
	}
	return b.Current
}

// retime moves the current page, which a wrong clock opened in the future, to the period that is really running. Its units
// were used now, and so were those of the page that it replaced. If instead the clock is wrong now, rollOver moves the page
// back.
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
		mine := p.Held[node]
		p.hold(node, h.Units)
		p.Held[node] = Holding{mine.Units + h.Units, mine.Spent + h.Spent}
	}
}

// pageOf returns the page that counts what happened in that period, nil if it was dropped.
func (b *Book) pageOf(held Period) *Page {
	if held.Forever() {
		return b.Prepaid
	}
	for _, p := range []*Page{b.Current, b.Previous} {
		if p != nil && (held.overlaps(p.Period) || held.overlaps(p.Was)) {
			return p
		}
	}
	return nil
}
