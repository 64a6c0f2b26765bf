package quota

import (
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Period is the time over which a limit counts: from Start until before End. The zero Period is for ever.
type Period struct {
	Start time.Time `json:"start,omitzero"`
	End   time.Time `json:"end,omitzero"`
}

// Forever reports whether the period never ends: it is that of prepaid credits.
func (p Period) Forever() bool { return p.End.IsZero() }

// Same reports whether the two are one period. Periods are told apart by their start.
func (p Period) Same(q Period) bool { return p.Start.Equal(q.Start) && p.Forever() == q.Forever() }

// overlaps reports whether two periods have an instant in common. Neither may be for ever.
func (p Period) overlaps(q Period) bool { return p.Start.Before(q.End) && q.Start.Before(p.End) }

// PeriodAt returns the period of the limit that is running at t.
//
// Seconds, minutes and hours are counted from the Unix epoch in UTC, so that a clock that is put back for winter does not
// repeat an hour. Days and months begin at midnight of the limit's zone, or at the first instant of the date where midnight
// is skipped. So a day has 23 or 25 hours when clocks change.
func PeriodAt(l *authz.Limit, t time.Time) Period {
	switch l.Window {
	case authz.WindowSecond:
		return fixed(t, time.Second)
	case authz.WindowMinute:
		return fixed(t, time.Minute)
	case authz.WindowHour:
		return fixed(t, time.Hour)
	case authz.WindowDay:
		y, m, d := t.In(zone(l)).Date()
		start, end := midnight(y, m, d, zone(l)), midnight(y, m, d+1, zone(l))
		if !t.Before(end) { // the clocks went back over midnight: the next day has begun
			start, end = end, midnight(y, m, d+2, zone(l))
		}
		return Period{Start: start, End: end}
	case authz.WindowMonth:
		y, m, _ := t.In(zone(l)).Date()
		start, end := monthStart(y, m, l), monthStart(y, m+1, l)
		switch {
		case t.Before(start):
			start, end = monthStart(y, m-1, l), start
		case !t.Before(end): // as with days
			start, end = end, monthStart(y, m+2, l)
		}
		return Period{Start: start, End: end}
	default: // authz.WindowNone: checkLimit refuses all others
		return Period{}
	}
}

func zone(l *authz.Limit) *time.Location {
	if l.Zone == nil {
		return time.UTC
	}
	return l.Zone
}

func fixed(t time.Time, d time.Duration) Period {
	secs := int64(d / time.Second)
	u := t.Unix()
	start := u - ((u%secs)+secs)%secs
	return Period{Start: time.Unix(start, 0).UTC(), End: time.Unix(start+secs, 0).UTC()}
}

// monthStart is the first instant of the period that begins in that month. Months outside of 1 to 12 are those of other years.
func monthStart(y int, m time.Month, l *authz.Limit) time.Time {
	day := max(l.Anchor, 1)
	if last := time.Date(y, m+1, 0, 12, 0, 0, 0, time.UTC).Day(); day > last {
		day = last
	}
	return midnight(y, m, day, zone(l))
}

// midnight is the first instant at which the zone's calendar shows that date or a later one. If midnight or the whole date is
// skipped that is the instant after the gap. If midnight comes twice it is the first.
func midnight(y int, m time.Month, d int, loc *time.Location) time.Time {
	wall := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	t := wall.Add(-24 * time.Hour).In(loc) // before the date: no zone is a day ahead of UTC
	for {
		_, offset := t.Zone()
		reached := wall.Add(-time.Duration(offset) * time.Second)
		if reached.Before(t) {
			reached = t
		}
		_, change := t.ZoneBounds()
		if change.IsZero() || reached.Before(change) {
			return reached.UTC()
		}
		t = change
	}
}
