package quota_test

import (
	"testing"
	"time"
	_ "time/tzdata" // the machine's own zones may be older, or absent

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

func location(tb testing.TB, name string) *time.Location {
	tb.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		tb.Fatal(err)
	}
	return loc
}

// zones are chosen for what their clocks did: midnights that were skipped or came twice, half hours, a date that was
// skipped, offsets of seconds, and clocks that went back over midnight.
func zones() []string {
	return []string{
		"UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Beirut", "Australia/Lord_Howe", "Pacific/Apia", "America/Havana",
		"America/St_Johns", "Asia/Kathmandu", "Africa/Monrovia", "Atlantic/Azores", "America/New_York", "Pacific/Kiritimati",
		"Asia/Gaza", "America/Scoresbysund", "Antarctica/Troll",
	}
}

func day(loc *time.Location) *authz.Limit {
	return &authz.Limit{Name: "day", Units: 1, Window: authz.WindowDay, Zone: loc}
}

func month(loc *time.Location, anchor int) *authz.Limit {
	return &authz.Limit{Name: "month", Units: 1, Window: authz.WindowMonth, Zone: loc, Anchor: anchor}
}

// firstInstant is the slow reference for the beginning of a date: it starts before any zone can have reached the date, and tries
// minute after minute until the zone's calendar shows that date or a later one.
func firstInstant(y int, m time.Month, d int, loc *time.Location) time.Time {
	wall := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	for t := wall.Add(-24 * time.Hour); ; t = t.Add(time.Minute) {
		if !calendar(t.In(loc)).Before(wall) {
			for calendar(t.Add(-time.Second).In(loc)).Equal(wall) || calendar(t.Add(-time.Second).In(loc)).After(wall) {
				t = t.Add(-time.Second)
			}
			return t
		}
	}
}

// calendar is the date that a clock shows, as an instant in UTC.
func calendar(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

func checkPeriod(tb testing.TB, l *authz.Limit, t time.Time) quota.Period {
	tb.Helper()
	p := quota.PeriodAt(l, t)
	if t.Before(p.Start) || !t.Before(p.End) {
		tb.Fatalf("%s in %s: %v lies outside of %v to %v", l.Window, l.Zone, t, p.Start, p.End)
	}
	if p.Start.Location() != time.UTC || p.End.Location() != time.UTC {
		tb.Fatalf("a period is not in UTC: %v", p)
	}
	// Tiles: the instant before the start lies in the period that ends there, and the end in the one that starts there.
	if before := quota.PeriodAt(l, p.Start.Add(-1)); !before.End.Equal(p.Start) {
		tb.Fatalf("%s in %s: the period before %v ends at %v", l.Window, l.Zone, p.Start, before.End)
	}
	if after := quota.PeriodAt(l, p.End); !after.Start.Equal(p.End) {
		tb.Fatalf("%s in %s: the period after %v starts at %v", l.Window, l.Zone, p.End, after.Start)
	}
	return p
}

// TestPeriodAt_DaysMatchReference compares the beginning of each day with the reference, in years in which the
// clocks did something odd.
func TestPeriodAt_DaysMatchReference(t *testing.T) {
	for _, span := range []struct {
		zone     string
		from, to time.Time
	}{
		{"Europe/Berlin", date(2024, 3, 28), date(2024, 4, 3)},
		{"Europe/Berlin", date(2024, 10, 25), date(2024, 10, 30)},
		{"America/Sao_Paulo", date(2018, 11, 2), date(2018, 11, 7)}, // midnight is skipped
		{"America/Sao_Paulo", date(2018, 2, 15), date(2018, 2, 21)}, // 23:00 comes twice
		{"Asia/Beirut", date(2023, 3, 22), date(2023, 4, 1)},        // announced twice, differently
		{"Asia/Beirut", date(2022, 10, 28), date(2022, 11, 2)},
		{"Australia/Lord_Howe", date(2024, 4, 5), date(2024, 4, 9)}, // by half an hour
		{"Pacific/Apia", date(2011, 12, 27), date(2012, 1, 3)},      // the 30th is skipped
		{"America/Havana", date(2023, 11, 3), date(2023, 11, 8)},    // midnight comes twice
		{"America/St_Johns", date(2006, 10, 27), date(2006, 11, 1)}, // back over midnight at a minute past
		{"America/St_Johns", date(2006, 3, 31), date(2006, 4, 4)},
		{"Africa/Monrovia", date(1972, 1, 5), date(1972, 1, 9)}, // by 44 minutes and 30 seconds
	} {
		loc := location(t, span.zone)
		for d := span.from; d.Before(span.to); d = d.AddDate(0, 0, 1) {
			start := firstInstant(d.Year(), d.Month(), d.Day(), loc)
			next := d.AddDate(0, 0, 1)
			end := firstInstant(next.Year(), next.Month(), next.Day(), loc)
			if start.Equal(end) {
				continue // a skipped date
			}
			for at := start; at.Before(end); at = at.Add(7 * time.Minute) {
				if p := quota.PeriodAt(day(loc), at); !p.Start.Equal(start) || !p.End.Equal(end) {
					t.Fatalf("%s: the day of %v is %v to %v, want %v to %v", span.zone, at.In(loc), p.Start, p.End, start, end)
				}
			}
		}
	}
}

func date(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }

// TestPeriodAt_MonthsMatchReference goes through two years hour by hour, with anchors that some months do not have.
func TestPeriodAt_MonthsMatchReference(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Berlin", "America/Sao_Paulo", "Pacific/Apia", "Australia/Lord_Howe"} {
		loc := location(t, name)
		for _, anchor := range []int{0, 1, 15, 28, 29, 30, 31} {
			var starts []time.Time
			for m := date(2010, 12, 1); m.Before(date(2013, 3, 1)); m = m.AddDate(0, 1, 0) {
				d, last := max(anchor, 1), m.AddDate(0, 1, -1).Day()
				starts = append(starts, firstInstant(m.Year(), m.Month(), min(d, last), loc))
			}
			for i := range len(starts) - 1 {
				for at := starts[i]; at.Before(starts[i+1]); at = at.Add(5 * time.Hour) {
					if p := quota.PeriodAt(month(loc, anchor), at); !p.Start.Equal(starts[i]) || !p.End.Equal(starts[i+1]) {
						t.Fatalf("%s from the %d.: the month of %v is %v to %v, want %v to %v", name, anchor, at.In(loc), p.Start, p.End, starts[i], starts[i+1])
					}
				}
				checkPeriod(t, month(loc, anchor), starts[i+1].Add(-1))
			}
		}
	}
}

func TestPeriodAt_MonthStarts(t *testing.T) {
	for _, c := range []struct{ at, start, end string }{
		{"2023-01-31T12:00:00Z", "2023-01-31", "2023-02-28"},
		{"2023-02-28T00:00:00Z", "2023-02-28", "2023-03-31"},
		{"2023-03-30T23:59:59Z", "2023-02-28", "2023-03-31"},
		{"2024-02-28T12:00:00Z", "2024-01-31", "2024-02-29"},
		{"2024-02-29T00:00:00Z", "2024-02-29", "2024-03-31"},
		{"2023-12-31T00:00:00Z", "2023-12-31", "2024-01-31"},
		{"2024-01-01T00:00:00Z", "2023-12-31", "2024-01-31"},
		{"1900-02-28T00:00:00Z", "1900-02-28", "1900-03-31"},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		p := checkPeriod(t, month(nil, 31), at)
		if p.Start.Format(time.DateOnly) != c.start || p.End.Format(time.DateOnly) != c.end {
			t.Errorf("%s: %v to %v, want %s to %s", c.at, p.Start, p.End, c.start, c.end)
		}
	}
}

// TestPeriodAt_SkippedDate has Samoa go from the 29th to the 31st.
func TestPeriodAt_SkippedDate(t *testing.T) {
	loc := location(t, "Pacific/Apia")
	gap := time.Date(2011, 12, 31, 0, 0, 0, 0, loc)
	last, next := quota.PeriodAt(day(loc), gap.Add(-1)), quota.PeriodAt(day(loc), gap)
	if !last.End.Equal(gap) || last.End.Sub(last.Start) != 24*time.Hour || next.End.Sub(next.Start) != 24*time.Hour {
		t.Errorf("the days around the gap: %v, %v", last, next)
	}
	if p := quota.PeriodAt(month(loc, 30), gap); !p.Start.Equal(gap) {
		t.Errorf("the month that begins on the 30th begins at %v", p.Start.In(loc))
	}
}

// TestPeriodAt_PeriodsTile draws instants, zones and anchors, and checks that each lies in exactly one period.
func TestPeriodAt_PeriodsTile(t *testing.T) {
	locs := make(map[string]*time.Location)
	for _, name := range zones() {
		locs[name] = location(t, name)
	}
	rapid.Check(t, func(rt *rapid.T) {
		l := &authz.Limit{
			Zone:   locs[rapid.SampledFrom(zones()).Draw(rt, "zone")],
			Anchor: rapid.IntRange(0, 31).Draw(rt, "anchor"),
			Window: rapid.SampledFrom([]authz.Window{
				authz.WindowSecond, authz.WindowMinute, authz.WindowHour, authz.WindowDay, authz.WindowMonth,
			}).Draw(rt, "window"),
		}
		at := time.Unix(rapid.Int64Range(-3_000_000_000, 6_000_000_000).Draw(rt, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(rt, "nanoseconds"))
		p := checkPeriod(t, l, at)
		// Every instant of the period has the same period.
		for _, other := range []time.Time{p.Start, p.End.Add(-1), p.Start.Add(p.End.Sub(p.Start) / 3)} {
			if again := quota.PeriodAt(l, other); !again.Same(p) || !again.End.Equal(p.End) {
				rt.Fatalf("%v lies in %v, and %v in %v", at, p, other, again)
			}
		}
		// The time zone of the instant makes no difference.
		if told := quota.PeriodAt(l, at.In(locs["Pacific/Kiritimati"])); told != p {
			rt.Fatalf("%v lies in %v or %v", at, p, told)
		}
	})
}

// TestPeriodAt_EveryTransition stands at every change of every zone's clocks from 1970 to 2037.
func TestPeriodAt_EveryTransition(t *testing.T) {
	for _, name := range zones() {
		loc := location(t, name)
		for at := date(1970, 1, 2).In(loc); ; {
			_, change := at.ZoneBounds()
			if change.IsZero() || change.Year() > 2037 {
				break
			}
			for _, near := range []time.Duration{-25 * time.Hour, -time.Hour, -1, 0, 30 * time.Minute, time.Hour, 25 * time.Hour} {
				p := checkPeriod(t, day(loc), change.Add(near))
				for _, anchor := range []int{1, change.Day()} {
					checkPeriod(t, month(loc, anchor), change.Add(near))
				}
				date := calendar(p.Start.In(loc))
				if before := calendar(p.Start.Add(-1).In(loc)); !before.Before(date) {
					t.Fatalf("%s: the day that starts at %v began before", name, p.Start.In(loc))
				}
			}
			at = change
		}
	}
}

func TestPeriodAt_FixedWindows(t *testing.T) {
	for window, length := range map[authz.Window]time.Duration{
		authz.WindowSecond: time.Second, authz.WindowMinute: time.Minute, authz.WindowHour: time.Hour,
	} {
		l := &authz.Limit{Window: window, Zone: location(t, "Asia/Kathmandu")} // is not used
		for _, at := range []time.Time{
			time.Unix(0, 0), time.Unix(0, -1), time.Unix(-1, 0), time.Unix(1_700_000_000, 5), time.Date(2024, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
		} {
			p := checkPeriod(t, l, at)
			if p.End.Sub(p.Start) != length || p.Start.UnixNano()%int64(length) != 0 {
				t.Errorf("%s at %v: %v to %v", window, at, p.Start, p.End)
			}
		}
	}
	if p := quota.PeriodAt(&authz.Limit{Window: authz.WindowNone}, time.Now()); p != (quota.Period{}) || !p.Forever() {
		t.Errorf("prepaid credits have the period %v", p)
	}
}

func TestPeriod_Same(t *testing.T) {
	a := quota.Period{Start: date(2024, 1, 1), End: date(2024, 2, 1)}
	for _, c := range []struct {
		p, q quota.Period
		want bool
	}{
		{a, a, true},
		{a, quota.Period{Start: a.Start.In(time.FixedZone("", 3600)), End: a.End}, true},
		{a, quota.Period{Start: a.End, End: a.End}, false},
		{a, quota.Period{}, false},
		{quota.Period{}, quota.Period{}, true},
		{quota.Period{Start: a.Start}, a, false},
	} {
		if c.p.Same(c.q) != c.want || c.q.Same(c.p) != c.want {
			t.Errorf("%v and %v: want %v", c.p, c.q, c.want)
		}
	}
}
