package quotatest

import (
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/storetest"
)

// Standby is a ledger of which copies can take over.
type Standby struct {
	quota.Ledger
	// Copy makes a copy. takeOver has the copy answer from then on, as another incarnation: commits after the copy are lost.
	Copy func() (takeOver func())
}

// RunLost runs what a ledger has to keep when its last commits are lost. open is as that of Run.
func RunLost(t *testing.T, open func(t *testing.T, now func() time.Time) Standby) {
	for _, test := range []struct {
		name string
		run  func(*lostFixture)
	}{
		{"lease that was lost is granted to nobody else", lostLease},
		{"report and return that were lost are told again", lostReport},
		{"request that knows more than the ledger is refused", lostRefused},
		{"nothing is lost but the server", lostNothing},
		{"node that was lost is waited for", lostNode},
		{"repetition of a lost request is the first", lostRepeated},
		{"settlement charges nothing while the ledger withholds", lostSettle},
		{"period that ended meanwhile", lostPeriod},
	} {
		t.Run(test.name, func(t *testing.T) {
			clock := NewClock()
			s := open(t, clock.Now)
			f := fixture{Fixture: storetest.Fixture{T: t}, clock: clock, ledger: s.Ledger, seqs: make(map[seqKey]uint64)}
			test.run(&lostFixture{fixture: f, copy: s.Copy, standing: make(map[quota.NodeID]quota.Standing)})
		})
	}
}

type lostFixture struct {
	fixture
	copy     func() (takeOver func())
	standing map[quota.NodeID]quota.Standing
}

// ask sends a request with the next seq of a node, which knows that answer of the last.
func (f *lostFixture) ask(node quota.NodeID, l authz.Limit, known *quota.Holding, spent, back, want int64) (quota.Lease, error) {
	f.Helper()
	f.tell(node)
	a := f.request(node, l, spent, want)
	a.Back, a.Last, a.Known = back, a.Seq-1, known
	return a.Send(f.Ctx(), f.ledger)
}

func (f *lostFixture) asks(node quota.NodeID, l authz.Limit, known *quota.Holding, spent, back, want int64) quota.Lease {
	f.Helper()
	lease, err := f.ask(node, l, known, spent, back, want)
	if err != nil {
		f.Fatal(err)
	}
	return lease
}

// tell renews a session, and says what the node has said before.
func (f *lostFixture) tell(node quota.NodeID) quota.Session {
	f.Helper()
	s, err := f.ledger.Renew(f.Ctx(), node, f.standing[node])
	if err != nil {
		f.Fatal(err)
	}
	f.standing[node] = quota.Standing{Applied: s.View.Number, Restated: f.standing[node].Restated}
	return s
}

// restated has a node say that it has told all.
func (f *lostFixture) restated(node quota.NodeID) {
	f.Helper()
	f.standing[node] = quota.Standing{Applied: f.standing[node].Applied, Restated: f.tell(node).Number}
	f.tell(node)
}

// trusted ends the time in which the ledger withholds.
func (f *lostFixture) trusted(nodes ...quota.NodeID) {
	f.Helper()
	f.clock.Advance(quota.SessionTerm / 2)
	for _, n := range nodes {
		f.restated(n)
	}
	f.clock.Advance(quota.SessionTerm/2 + time.Second)
}

func lostLease(f *lostFixture) {
	l := prepaid()
	f.asks("b", l, nil, 0, 0, 1)
	first := f.tell("a")
	takeOver := f.copy()
	f.asks("a", l, nil, 0, 0, 6)
	takeOver()
	if got := f.asks("b", l, nil, 1, 0, 9); got.Granted != 0 || !got.Withheld {
		f.Fatalf("the ledger does not withhold: %+v", got)
	}
	if s := f.tell("a"); s.Number <= first.Number {
		f.Fatalf("session %d goes on", s.Number)
	}
	got := f.asks("a", l, &quota.Holding{Units: 6}, 2, 0, 1)
	if got.Granted != 0 || got.Held != 4 || got.Reported != 2 || !got.Withheld || got.Counted != 7 {
		f.Fatalf("restated: %+v", got)
	}
	f.trusted("a", "b")
	if got := f.asks("b", l, nil, 0, 0, 9); got.Granted != 3 || got.Withheld {
		f.Fatalf("after all was told: %+v", got)
	}
	if got := f.balance(l); got.Spent != 3 || got.Outstanding["a"] != 4 || got.Outstanding["b"] != 3 {
		f.Fatalf("balance: %+v", got)
	}
}

func lostReport(f *lostFixture) {
	l := prepaid()
	f.asks("a", l, nil, 0, 0, 6)
	takeOver := f.copy()
	f.asks("a", l, nil, 2, 4, 0)
	takeOver()
	if got := f.asks("a", l, &quota.Holding{Spent: 2}, 0, 0, 0); got.Held != 0 || got.Reported != 2 || got.Counted != 2 {
		f.Fatalf("restated: %+v", got)
	}
	f.trusted("a")
	if got := f.asks("a", l, nil, 0, 0, 20); got.Granted != 8 {
		f.Fatalf("after all was told: %+v", got)
	}
}

func lostRefused(f *lostFixture) {
	l := tenAnHour()
	f.asks("a", l, nil, 0, 0, 1)
	takeOver := f.copy()
	f.asks("a", l, nil, 1, 0, 3)
	takeOver()
	_, err := f.ask("a", l, nil, 1, 0, 3)
	f.Refused(err, authz.KindConflict)
	if got := f.asks("a", l, &quota.Holding{Units: 3, Spent: 1}, 1, 0, 0); got.Held != 2 || got.Reported != 2 || got.Counted != 4 {
		f.Fatalf("restated: %+v", got)
	}
}

func lostNothing(f *lostFixture) {
	l := tenAnHour()
	f.asks("a", l, nil, 0, 0, 4)
	f.settle(f.settlement("s", l, 1, 0))
	f.copy()()
	// What the node knows is older than the refund.
	if got := f.asks("a", l, &quota.Holding{Units: 4}, 1, 0, 2); got.Granted != 0 || !got.Withheld || got.Held != 3 || got.Counted != 3 {
		f.Fatalf("restated: %+v", got)
	}
	f.trusted("a")
	if got := f.asks("a", l, nil, 0, 0, 2); got.Granted != 2 || got.Withheld {
		f.Fatalf("after all was told: %+v", got)
	}
}

func lostNode(f *lostFixture) {
	l := prepaid()
	f.asks("b", l, nil, 0, 0, 1)
	takeOver := f.copy()
	f.asks("a", l, nil, 0, 0, 9) // it joins, and the ledger forgets it
	takeOver()
	f.restated("b")
	f.clock.Advance(quota.SessionTerm - time.Second)
	if got := f.asks("b", l, nil, 0, 0, 9); got.Granted != 0 || !got.Withheld {
		f.Fatalf("the ledger does not wait: %+v", got)
	}
	if got := f.asks("a", l, &quota.Holding{Units: 9}, 9, 0, 1); got.Reported != 9 || got.Counted != 10 {
		f.Fatalf("restated: %+v", got)
	}
	f.trusted("a", "b")
	if got := f.asks("b", l, nil, 0, 0, 9); got.Granted != 0 || got.Withheld {
		f.Fatalf("after all was told: %+v", got)
	}
}

func lostRepeated(f *lostFixture) {
	l := tenAnHour()
	f.asks("a", l, nil, 0, 0, 2)
	takeOver := f.copy()
	r := f.request("a", l, 1, 3)
	r.Last = r.Seq - 1
	f.send(r)
	takeOver()
	f.tell("a")
	got, err := r.Send(f.Ctx(), f.ledger) // its answer was lost, so the node knows no more than the ledger
	if err != nil || got.Granted != 0 || got.Held != 1 || !got.Withheld {
		f.Fatalf("repeated: %+v, %v", got, err)
	}
}

func lostSettle(f *lostFixture) {
	l := tenAnHour()
	f.asks("a", l, nil, 0, 0, 4)
	f.asks("a", l, nil, 2, 0, 0)
	f.copy()()
	f.tell("a")
	f.Same("a settlement", f.settle(f.settlement("more", l, 1, 3)), quota.Settlement{Overage: 2})
	f.Same("a refund", f.settle(f.settlement("less", l, 1, 0)), quota.Settlement{Refunded: 1})
}

func lostPeriod(f *lostFixture) {
	l := tenAnHour()
	f.asks("a", l, nil, 0, 0, 2)
	takeOver := f.copy()
	f.asks("a", l, nil, 0, 0, 5)
	takeOver()
	a := f.request("a", l, 4, 1)
	a.Last, a.Known, a.Back = a.Seq-1, &quota.Holding{Units: 7}, 3
	f.clock.Advance(time.Hour)
	f.tell("a")
	got, err := a.Send(f.Ctx(), f.ledger)
	if err != nil || got.Held != 0 || got.Counted != 0 || !got.Withheld {
		f.Fatalf("restated: %+v, %v", got, err)
	}
	f.trusted("a")
	a.Seq, a.Last, a.Known, a.Spent, a.Back, a.Want = a.Seq+1, a.Seq, nil, 0, 0, 10
	if got, err = a.Send(f.Ctx(), f.ledger); err != nil || got.Granted != 10 {
		f.Fatalf("the next period: %+v, %v", got, err)
	}
}
