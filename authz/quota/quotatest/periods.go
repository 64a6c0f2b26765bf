package quotatest

import (
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

var periodTests = suite{
	{"period that ends starts a new one", periodEnds},
	{"period before the running one takes late reports", lateReport},
	{"period older than that is dropped", droppedReport},
	{"clock that goes back opens no period again", clockBack},
	{"books are forgotten when nothing depends on them", forgets},
	{"clock that was far ahead leaves nothing behind", clockWrong},
	{"report of a period that a wrong clock opened", clockWrongReports},
	{"clock that was far behind grants nothing twice", clockBehind},
	{"units of a node whose session is over are stranded", strands},
	{"node that comes back has its lease again", comesBack},
	{"prepaid units of such a node are refunded if the limit says so", refundsOnCrash},
	{"prepaid balances have no period", prepaidStays},
	{"plan lowered keeps what was granted", planLowered},
	{"limit with another window is another count", windowChanged},
}

func periodEnds(f *fixture) {
	l := tenAnHour()
	first := f.lease("a", l, 0, 10)
	f.clock.Advance(first.Period.End.Sub(f.clock.Now()) - time.Nanosecond)
	if got := f.lease("b", l, 0, 1); got.Granted != 0 {
		f.Fatalf("just before the end: %+v", got)
	}
	f.clock.Advance(time.Nanosecond)
	if got := f.balance(l); got.Granted != 0 || got.Free != 10 || !got.Period.Start.Equal(first.Period.End) {
		f.Fatalf("balance at the end: %+v", got)
	}
	got := f.lease("b", l, 0, 3)
	if got.Granted != 3 || got.Held != 3 || got.Elsewhere != 0 || !got.Period.Start.Equal(first.Period.End) {
		f.Fatalf("lease at the end: %+v", got)
	}
	if got := f.lease("a", l, 0, 1); got.Held != 1 {
		f.Fatalf("what was held of the last period is still held: %+v", got)
	}
}

func lateReport(f *fixture) {
	l := tenAnHour()
	held := f.lease("a", l, 0, 8).Period
	f.clock.Advance(time.Hour)
	r := f.request("a", l, 5, 2)
	r.Held = held
	if got := f.send(r); got.Granted != 2 || got.Held != 2 || got.Counted != 2 {
		f.Fatalf("lease with a late report: %+v", got)
	}
	if got := f.balance(l); got.Spent != 0 || got.Overage != 0 {
		f.Fatalf("the late report was booked on the running period: %+v", got)
	}
	r = f.request("a", l, 0, 0)
	r.Held, r.Back = held, 3
	f.send(r)
	if got := f.balance(l); got.Returned != 0 || got.Outstanding["a"] != 2 {
		f.Fatalf("the late return was booked on the running period: %+v", got)
	}
	// The period before still has 5 spent of 10, as a settlement shows.
	s := f.settlement("s", l, 0, 7)
	s.Period = held
	if got := f.settle(s); got.Charged != 5 || got.Overage != 2 {
		f.Fatalf("settlement in the period before: %+v", got)
	}
}

func droppedReport(f *fixture) {
	l := tenAnHour()
	held := f.lease("a", l, 0, 8).Period
	for range 2 {
		f.clock.Advance(time.Hour)
		f.lease("b", l, 0, 1)
	}
	before := f.balance(l)
	r := f.request("a", l, 5, 0)
	r.Held = held
	f.send(r)
	s := f.settlement("s", l, 5, 2)
	s.Period = held
	if got := f.settle(s); got != (quota.Settlement{}) {
		f.Fatalf("settlement two periods later: %+v", got)
	}
	f.Same("the balance", f.balance(l), before)
}

func clockBack(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 10)
	f.clock.Advance(time.Hour)
	turned := f.lease("a", l, 0, 7).Period
	f.clock.Advance(-quota.ClockJump)
	got := f.lease("a", l, 0, 10)
	if got.Granted != 3 || !got.Period.Same(turned) {
		f.Fatalf("lease after the clock went back: %+v", got)
	}
}

func forgets(f *fixture) {
	forget := func(want int) {
		f.Helper()
		if got, err := f.ledger.Forget(f.Ctx()); err != nil || got != want {
			f.Fatalf("%d forgotten, want %d: %v", got, want, err)
		}
	}
	hour, nothing := tenAnHour(), prepaid()
	nothing.Name = "nothing" // was only leased and returned
	f.lease("a", hour, 0, 4)
	f.lease("a", prepaid(), 0, 4)
	f.giveBack("a", prepaid(), 1, 3)
	f.lease("a", nothing, 0, 1)
	f.giveBack("a", nothing, 0, 1)
	credited := prepaid()
	credited.Name = "credited"
	f.credit("c", credited, 5)
	forget(0)
	f.clock.Advance(time.Hour) // the period is over, and may still be settled
	forget(0)
	f.clock.Advance(quota.SettleMemory + time.Second)
	forget(1) // the records of those who have prepaid stay
	forget(0)
	if got := f.balance(hour); got.Granted != 0 || got.Free != 10 {
		f.Fatalf("balance of what was forgotten: %+v", got)
	}
	if got := f.balance(prepaid()); got.Spent != 1 {
		f.Fatalf("prepaid use was forgotten: %+v", got)
	}
	if got := f.balance(credited); got.Allowance != credited.Units+5 {
		f.Fatalf("a credit was forgotten: %+v", got)
	}
}

// clockWrong leases while the clock is ten years ahead. Units that are used then count in the real period.
func clockWrong(f *fixture) {
	const years = 10 * 365 * 24 * time.Hour
	for _, l := range []authz.Limit{tenAnHour(), {Name: "day", Units: 10, Window: authz.WindowDay}} {
		period := f.lease("a", l, 0, 2).Period
		f.clock.Advance(years)
		f.lease("b", l, 0, 3)
		f.clock.Advance(-years)
		got := f.lease("a", l, 2, 10)
		if got.Granted != 5 || !got.Period.Same(period) {
			f.Fatalf("%s: lease when the clock was put right: %+v", l.Name, got)
		}
		f.clock.Advance(quota.SessionTerm)
		if got := f.balance(l); got.Spent != 2 || got.Stranded != 8 || len(got.Outstanding) != 0 {
			f.Fatalf("%s: balance a minute later: %+v", l.Name, got)
		}
		f.clock.Advance(24 * time.Hour)
		if got := f.lease("a", l, 0, 10); got.Granted != 10 {
			f.Fatalf("%s: lease of the next period: %+v", l.Name, got)
		}
	}
	l := prepaid()
	l.RefundOnCrash = true
	f.clock.Advance(years)
	f.lease("a", l, 0, 10)
	f.clock.Advance(-years)
	if got := f.lease("b", l, 0, 10); got.Granted != 0 {
		f.Fatalf("leased twice: %+v", got)
	}
	f.clock.Advance(quota.SessionTerm)
	if got := f.lease("b", l, 0, 10); got.Granted != 10 {
		f.Fatalf("what a crashed node held comes back: %+v", got)
	}
}

// clockWrongReports has a node report and return units of a wrong period after the clock was corrected.
func clockWrongReports(f *fixture) {
	const years = 10 * 365 * 24 * time.Hour
	l := tenAnHour()
	f.clock.Advance(years)
	wrong := f.lease("a", l, 0, 8).Period
	f.clock.Advance(-years)
	f.lease("b", l, 0, 1)
	r := f.request("a", l, 3, 0)
	r.Held, r.Back = wrong, 5
	f.send(r)
	if got := f.balance(l); got.Spent != 3 || got.Overage != 0 || got.Outstanding["a"] != 0 || got.Free != 6 {
		f.Fatalf("balance after the report: %+v", got)
	}
}

// clockBehind leases while the clock is years behind, as on a machine that has not yet set its clock. When it is corrected, the
// units that were used before count.
func clockBehind(f *fixture) {
	const years = 10 * 365 * 24 * time.Hour
	for _, window := range []authz.Window{authz.WindowHour, authz.WindowDay, authz.WindowMonth} {
		l := authz.Limit{Name: string(window), Units: 10, Window: window}
		period := f.lease("a", l, 0, 8).Period
		f.clock.Advance(-years)
		if got := f.lease("b", l, 0, 10); got.Granted != 2 {
			f.Fatalf("%s: lease while the clock is behind: %+v", window, got)
		}
		f.clock.Advance(years)
		if n, err := f.ledger.Forget(f.Ctx()); err != nil || n != 0 {
			f.Fatalf("%s: %d forgotten: %v", window, n, err)
		}
		if got := f.lease("a", l, 8, 10); got.Granted != 0 || !got.Period.Same(period) {
			f.Fatalf("%s: lease when the clock was put right: %+v", window, got)
		}
	}
}

func strands(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 4)
	f.lease("a", l, 1, 0)
	f.clock.Advance(quota.SessionTerm)
	if got := f.balance(l); got.Stranded != 3 || len(got.Outstanding) != 0 || got.Free != 6 {
		f.Fatalf("after the session of the node: %+v", got)
	}
	if got := f.lease("b", l, 0, 10); got.Granted != 6 || got.Elsewhere != 0 {
		f.Fatalf("what is stranded was granted again, or can be recalled: %+v", got)
	}
}

func comesBack(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 4)
	f.clock.Advance(2 * quota.SessionTerm)
	if got := f.lease("a", l, 1, 2); got.Granted != 2 || got.Held != 5 {
		f.Fatalf("a node that comes back: %+v", got)
	}
	if got := f.balance(l); got.Stranded != 0 || got.Spent != 1 || got.Outstanding["a"] != 5 {
		f.Fatalf("balance: %+v", got)
	}
}

func refundsOnCrash(f *fixture) {
	l := prepaid()
	l.RefundOnCrash = true
	f.lease("a", l, 0, 8)
	f.lease("a", l, 3, 0)
	f.clock.Advance(quota.SessionTerm)
	if got := f.balance(l); got.Stranded != 0 || got.Returned != 5 || got.Spent != 3 || got.Free != 7 {
		f.Fatalf("balance: %+v", got)
	}
	if got := f.lease("b", l, 0, 10); got.Granted != 7 {
		f.Fatalf("what was refunded can be leased: %+v", got)
	}
	if got := f.lease("a", l, 2, 5); got.Granted != 0 || got.Held != 0 {
		f.Fatalf("a node that comes back after the refund: %+v", got)
	}
	if got := f.balance(l); got.Overage != 2 || got.Spent != 3 || got.Outstanding["b"] != 7 {
		f.Fatalf("balance: %+v", got)
	}

	l = prepaid()
	l.Name = "kept"
	f.lease("a", l, 0, 8)
	f.clock.Advance(1000 * time.Hour)
	if got := f.balance(l); got.Stranded != 8 || got.Free != 2 {
		f.Fatalf("refunded though the limit does not say so: %+v", got)
	}
}

func prepaidStays(f *fixture) {
	l := prepaid()
	f.lease("a", l, 0, 4)
	f.clock.Advance(100 * 24 * time.Hour)
	got := f.lease("a", l, 4, 10)
	if got.Granted != 6 || !got.Period.Forever() {
		f.Fatalf("prepaid after a hundred days: %+v", got)
	}
}

func planLowered(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 8)
	l.Units = 5
	if got := f.lease("a", l, 2, 3); got.Granted != 0 || got.Held != 6 || got.Counted != 8 {
		f.Fatalf("lease after the plan was lowered: %+v", got)
	}
	f.giveBack("a", l, 0, 6)
	if got := f.lease("a", l, 0, 10); got.Granted != 3 {
		f.Fatalf("lease after enough was returned: %+v", got)
	}
	l.Units = 20
	if got := f.lease("a", l, 0, 100); got.Granted != 15 {
		f.Fatalf("lease after the plan was raised: %+v", got)
	}
}

// windowChanged counts a limit of one name by the hour, the day, and for ever: what is used of one is not used of another.
func windowChanged(f *fixture) {
	hour, day, credits := tenAnHour(), tenAnHour(), tenAnHour()
	day.Window, credits.Window = authz.WindowDay, authz.WindowNone
	f.lease("a", hour, 0, 8)
	if got := f.lease("a", day, 0, 10); got.Granted != 10 || got.Held != 10 {
		f.Fatalf("an hour that became a day: %+v", got)
	}
	f.credit("paid", credits, 5)
	if got := f.lease("a", credits, 0, 100); got.Granted != 15 || got.Held != 15 {
		f.Fatalf("a day that became credits: %+v", got)
	}
	if got := f.lease("a", hour, 1, 10); got.Granted != 2 || got.Held != 9 {
		f.Fatalf("the hour again: %+v", got)
	}
	f.clock.Advance(time.Hour)
	if got := f.lease("a", hour, 0, 1); got.Granted != 1 || got.Held != 1 {
		f.Fatalf("the next hour: %+v", got)
	}
	if got := f.lease("a", day, 3, 1); got.Granted != 0 || got.Held != 7 {
		f.Fatalf("the day in the next hour: %+v", got)
	}
}
