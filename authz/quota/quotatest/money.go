package quotatest

import (
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

var moneyTests = suite{
	{"credit raises the allowance", credits},
	{"credit replayed counts once", creditReplayed},
	{"credit with a used id is refused", creditConflicts},
	{"credit refused leaves its id free", creditRefused},
	{"credit of a period ends with it", creditOfPeriod},
	{"reset forgives what was spent", resets},
	{"reset replayed counts once", resetReplayed},
	{"reset writes off what is stranded", resetStranded},
	{"reset of prepaid credits is refused", resetPrepaid},
	{"release gives back and writes off", releases},
	{"release is refused while the node is alive", releaseRefused},
	{"stranded prepaid units are listed", strandedListed},
	{"settle refunds", settleRefunds},
	{"settle charges what is left and records the rest", settleCharges},
	{"settle twice returns the first answer", settleTwice},
	{"settle remembers for as long as promised", settleRemembers},
	{"settle before the report counts once", settleBeforeReport},
	{"settle never refunds more than was granted", settleBounded},
	{"settle of old periods", settleOld},
}

func credits(f *fixture) {
	l := prepaid()
	f.lease("a", l, 0, 10)
	if got := f.credit("c1", l, 5); got.Allowance != 15 || got.Free != 5 || got.Granted != 10 {
		f.Fatalf("balance after a credit: %+v", got)
	}
	f.credit("c2", l, 5)
	if got := f.lease("a", l, 0, 100); got.Granted != 10 || got.Credited != 10 || got.Counted != 10 {
		f.Fatalf("lease after two credits: %+v", got)
	}
}

func creditReplayed(f *fixture) {
	l := prepaid()
	f.credit("c", l, 5)
	f.lease("a", l, 0, 3)
	f.clock.Advance(1000 * 24 * time.Hour)
	if got := f.credit("c", l, 5); got.Allowance != 15 || got.Stranded != 3 {
		f.Fatalf("credited twice, or an old balance was returned: %+v", got)
	}
}

func creditConflicts(f *fixture) {
	l, other := prepaid(), tenAnHour()
	f.credit("c", l, 5)
	f.reset("r", other)
	before, beforeOther := f.balance(l), f.balance(other)
	for _, r := range []quota.CreditRequest{
		{ID: "c", Bucket: bucketFor(l), Limit: l, Units: 6},
		{ID: "c", Bucket: bucketFor(other), Limit: other, Units: 5},
		{ID: "r", Bucket: bucketFor(other), Limit: other, Units: 5},
	} {
		_, err := f.ledger.Credit(f.Ctx(), r)
		f.Refused(err, authz.KindConflict)
	}
	_, err := f.ledger.Reset(f.Ctx(), quota.ResetRequest{ID: "c", Bucket: bucketFor(other), Limit: other})
	f.Refused(err, authz.KindConflict)
	f.Same("the balance", f.balance(l), before)
	f.Same("the other balance", f.balance(other), beforeOther)
}

func creditRefused(f *fixture) {
	l := prepaid()
	_, err := f.ledger.Credit(f.Ctx(), quota.CreditRequest{ID: "c", Bucket: bucketFor(l), Limit: l, Units: -1})
	f.Refused(err, authz.KindInvalid)
	if got := f.credit("c", l, 5); got.Allowance != 15 {
		f.Fatalf("credit after a refused one: %+v", got)
	}
}

func creditOfPeriod(f *fixture) {
	l := tenAnHour()
	if got := f.credit("c", l, 5); got.Allowance != 15 || got.Free != 15 {
		f.Fatalf("balance after a credit: %+v", got)
	}
	f.clock.Advance(time.Hour)
	if got := f.balance(l); got.Allowance != 10 {
		f.Fatalf("balance of the next period: %+v", got)
	}
	if got := f.credit("c", l, 5); got.Allowance != 10 {
		f.Fatalf("replayed in the next period: %+v", got)
	}
}

func resets(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 10)
	f.lease("a", l, 7, 0)
	if got := f.reset("r1", l); got.Forgiven != 7 || got.Free != 7 || got.Outstanding["a"] != 3 {
		f.Fatalf("balance after a reset: %+v", got)
	}
	if got := f.lease("b", l, 0, 100); got.Granted != 7 {
		f.Fatalf("lease after a reset: %+v", got)
	}
	f.lease("b", l, 7, 0)
	if got := f.reset("r2", l); got.Forgiven != 14 || got.Free != 7 {
		f.Fatalf("balance after a second reset: %+v", got)
	}
	f.clock.Advance(time.Hour)
	if got := f.balance(l); got.Forgiven != 0 || got.Free != 10 {
		f.Fatalf("balance of the next period: %+v", got)
	}
}

func resetReplayed(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 10)
	f.lease("a", l, 10, 0)
	f.reset("r", l)
	f.lease("a", l, 0, 4)
	f.lease("a", l, 4, 0)
	if got := f.reset("r", l); got.Forgiven != 10 || got.Free != 6 {
		f.Fatalf("reset twice: %+v", got)
	}
}

func resetStranded(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 6)
	f.clock.Advance(quota.SessionTerm)
	if got := f.reset("r", l); got.Free != 10 || got.Stranded != 0 || got.Forgiven != 6 {
		f.Fatalf("balance: %+v", got)
	}
	f.giveBack("a", l, 0, 6)
	if got := f.lease("a", l, 0, 100); got.Granted != 10 || got.Held != 10 {
		f.Fatalf("a node that comes back after a reset: %+v", got)
	}
}

func resetPrepaid(f *fixture) {
	l := prepaid()
	f.lease("a", l, 0, 10)
	before := f.balance(l)
	_, err := f.ledger.Reset(f.Ctx(), quota.ResetRequest{ID: "r", Bucket: bucketFor(l), Limit: l})
	f.Refused(err, authz.KindInvalid)
	f.Same("the balance", f.balance(l), before)
}

func settleRefunds(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 10)
	f.lease("a", l, 8, 0)
	f.Same("the settlement", f.settle(f.settlement("s", l, 5, 2)), quota.Settlement{Refunded: 3})
	if got := f.balance(l); got.Spent != 5 || got.Returned != 3 || got.Free != 3 {
		f.Fatalf("balance: %+v", got)
	}
	f.Same("one that changes nothing", f.settle(f.settlement("same", l, 5, 5)), quota.Settlement{})
}

func settleCharges(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 7)
	f.lease("a", l, 5, 0)
	f.Same("the settlement", f.settle(f.settlement("s1", l, 1, 2)), quota.Settlement{Charged: 1})
	f.Same("the second", f.settle(f.settlement("s2", l, 1, 9)), quota.Settlement{Charged: 2, Overage: 6})
	if got := f.balance(l); got.Spent != 8 || got.Granted != 10 || got.Overage != 6 || got.Free != 0 {
		f.Fatalf("balance: %+v", got)
	}
}

func settleTwice(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 10)
	f.lease("a", l, 10, 0)
	first := f.settle(f.settlement("s", l, 5, 2))
	before := f.balance(l)
	f.Same("the repeated answer", f.settle(f.settlement("s", l, 5, 2)), first)
	f.Same("the answer to something else", f.settle(f.settlement("s", l, 5, 9)), first)
	f.Same("the balance", f.balance(l), before)
}

func settleRemembers(f *fixture) {
	l := prepaid()
	f.lease("a", l, 0, 10)
	f.lease("a", l, 10, 0)
	first := f.settle(f.settlement("s", l, 5, 2))
	before := f.balance(l)
	for range 4 {
		f.clock.Advance(quota.SettleMemory / 4)
		f.settle(f.settlement("other", l, 1, 1)) // a write may delete old ones
		f.Same("the repeated answer", f.settle(f.settlement("s", l, 5, 2)), first)
	}
	f.Same("the balance", f.balance(l), before)
}

func settleBeforeReport(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 10)
	f.Same("the settlement", f.settle(f.settlement("s", l, 5, 1)), quota.Settlement{Refunded: 4})
	if got := f.balance(l); got.Free != 4 {
		f.Fatalf("balance before the report: %+v", got)
	}
	f.giveBack("a", l, 5, 5)
	if got := f.balance(l); got.Spent != 1 || got.Returned != 9 || got.Free != 9 {
		f.Fatalf("balance after the report: %+v", got)
	}
}

func settleBounded(f *fixture) {
	l := tenAnHour()
	f.Same("a settlement of nothing", f.settle(f.settlement("s1", l, 100, 0)), quota.Settlement{})
	f.lease("a", l, 0, 4)
	f.Same("a settlement of too much", f.settle(f.settlement("s2", l, 100, 0)), quota.Settlement{Refunded: 4})
	f.giveBack("a", l, 0, 4)
	if got := f.lease("b", l, 0, 100); got.Granted != 10 {
		f.Fatalf("more was refunded than was ever granted: %+v", got)
	}
}

func settleOld(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 10)
	f.lease("a", l, 10, 0)
	s := f.settlement("s", l, 5, 2)
	f.clock.Advance(time.Hour)
	f.lease("a", l, 0, 10)
	before := f.balance(l)
	f.Same("the settlement", f.settle(s), quota.Settlement{Refunded: 3})
	f.Same("the balance of the running period", f.balance(l), before)
}

// releases decides on what a node that is gone held: some comes back, the rest was used.
func releases(f *fixture) {
	l := prepaid()
	f.lease("a", l, 0, 8)
	f.lease("a", l, 2, 0)
	f.clock.Advance(quota.SessionTerm)
	release := func(id string, units int64) (quota.Balance, error) {
		return f.ledger.Release(f.Ctx(), quota.ReleaseRequest{ID: id, Bucket: bucketFor(l), Limit: l, Node: "a", Units: units})
	}
	for _, units := range []int64{-1, 7} {
		_, err := release("r", units)
		f.Refused(err, map[bool]authz.Kind{true: authz.KindInvalid, false: authz.KindConflict}[units < 0])
	}
	for range 2 { // the same id counts once
		got, err := release("r", 5)
		if err != nil || got.Spent != 3 || got.Returned != 5 || got.Stranded != 0 || got.Free != 7 {
			f.Fatalf("5 of 6 stranded units came back: %+v, %v", got, err)
		}
	}
	_, err := release("again", 0)
	f.Refused(err, authz.KindConflict)
	if got := f.lease("b", l, 0, 10); got.Granted != 7 {
		f.Fatalf("lease of what came back: %+v", got)
	}
	f.giveBack("a", l, 1, 5) // a node that was not dead after all
	if got := f.balance(l); got.Overage != 1 || got.Spent != 3 || got.Free != 0 {
		f.Fatalf("balance: %+v", got)
	}
}

func releaseRefused(f *fixture) {
	l := prepaid()
	f.lease("a", l, 0, 8)
	before := f.balance(l)
	_, err := f.ledger.Release(f.Ctx(), quota.ReleaseRequest{ID: "r", Bucket: bucketFor(l), Limit: l, Node: "a", Units: 1})
	f.Refused(err, authz.KindConflict)
	_, err = f.ledger.Release(f.Ctx(), quota.ReleaseRequest{ID: "r", Bucket: bucketFor(l), Limit: l, Node: "stranger"})
	f.Refused(err, authz.KindConflict)
	f.Same("the balance", f.balance(l), before)
}

// strandedListed lists what nodes held of prepaid limits when they went, and what they had reported.
func strandedListed(f *fixture) {
	l, hour := prepaid(), tenAnHour()
	f.lease("a", l, 0, 6)
	f.lease("a", l, 2, 0)
	f.settle(quota.SettleRequest{ID: "s", Node: "a", Bucket: bucketFor(l), Limit: l, Estimate: 2, Actual: 1})
	f.lease("a", hour, 0, 5)
	list := func() (all []quota.Stranding) {
		f.Helper()
		if err := f.ledger.Stranded(f.Ctx(), func(s quota.Stranding) bool { all = append(all, s); return true }); err != nil {
			f.Fatal(err)
		}
		return all
	}
	f.Same("what is stranded while the node is alive", list(), []quota.Stranding(nil))
	f.clock.Advance(quota.SessionTerm)
	f.lease("b", l, 0, 1)
	f.Same("what is stranded", list(), []quota.Stranding{{Bucket: bucketFor(l), Node: "a", Units: 4, Reported: 1}})
}
