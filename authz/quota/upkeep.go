package quota

import (
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Check returns an error that names the first broken invariant of the book.
func (b *Book) Check() error {
	for _, p := range []*Page{b.Current, b.Previous, b.Prepaid} {
		if p == nil {
			continue
		}
		var held int64
		for node, h := range p.Held {
			if h.Units < 0 {
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

// Forgettable reports whether a new book would answer as this one does.
func (b *Book) Forgettable(now time.Time) bool {
	for _, p := range []*Page{b.Current, b.Previous} {
		if p != nil && !(p.Period.End.Add(SettleMemory).Before(now) && p.Was.End.Add(SettleMemory).Before(now)) {
			return false
		}
	}
	p := b.Prepaid
	if p == nil {
		return true
	}
	for _, h := range p.Held {
		if h.Units != 0 {
			return false
		}
	}
	return p.Granted == p.Returned && p.Spent == 0 && p.Credited == 0 && p.Forgiven == 0 && p.Overage == 0
}

// Split takes the count of a bucket out of a book of an older version, in which all limits of one name shared a book. It
// returns nil if the book has no such count.
func (b *Book) Split(bucket Bucket) *Book {
	if bucket.Window == authz.WindowNone {
		if b.Prepaid == nil {
			return nil
		}
		out := &Book{Prepaid: b.Prepaid}
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
	out := &Book{Current: b.Current, Previous: b.Previous}
	b.Current, b.Previous = nil, nil
	return out
}

// Empty reports whether the book has no counts.
func (b *Book) Empty() bool { return b.Current == nil && b.Previous == nil && b.Prepaid == nil }
