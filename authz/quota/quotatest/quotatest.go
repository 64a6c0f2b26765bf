package quotatest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/storetest"
)

// Run runs the suite. open returns an empty ledger with that clock. It closes the ledger in t.Cleanup, and may check
// there that its books are sound.
func Run(t *testing.T, open func(t *testing.T, now func() time.Time) quota.Ledger) {
	for _, test := range slices.Concat(leaseTests, periodTests, moneyTests, memberTests, crowdTests, randomTests) {
		t.Run(test.name, func(t *testing.T) {
			clock := NewClock()
			test.run(&fixture{Fixture: storetest.Fixture{T: t}, clock: clock, ledger: open(t, clock.Now), seqs: make(map[seqKey]uint64)})
		})
	}
}

// suite is tests by name.
type suite []struct {
	name string
	run  func(*fixture)
}

// Clock is a clock that stands still until it is moved.
type Clock struct {
	mu sync.Mutex
	t  time.Time
}

// NewClock makes a clock that shows a quarter past an hour in the middle of a month.
func NewClock() *Clock { return &Clock{t: time.Date(2024, 5, 15, 12, 15, 0, 0, time.UTC)} }

// Now returns what the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

type seqKey struct {
	node   quota.NodeID
	holder quota.HolderID
}

// fixture is one ledger under test.
type fixture struct {
	storetest.Fixture
	clock  *Clock
	ledger quota.Ledger
	seqs   map[seqKey]uint64
}

// tenAnHour and prepaid are the limits of most tests.
func tenAnHour() authz.Limit {
	return authz.Limit{Name: "requests", Units: 10, Unit: authz.UnitRequests, Window: authz.WindowHour, Per: authz.PerKey}
}

func prepaid() authz.Limit {
	return authz.Limit{Name: "credits", Units: 10, Unit: "credits", Window: authz.WindowNone, Per: authz.PerAccount}
}

func bucketFor(l authz.Limit) quota.Bucket {
	return quota.BucketOf(&l, authz.Holder{Key: "holder", Account: "holder"})
}

// next is the next seq of a node.
func (f *fixture) next(node quota.NodeID, b quota.Bucket) uint64 {
	f.seqs[seqKey{node, b.HolderID()}]++
	return f.seqs[seqKey{node, b.HolderID()}]
}

// request asks with the next seq. The units that it reports were spent in the running period.
func (f *fixture) request(node quota.NodeID, l authz.Limit, spent, want int64) Ask {
	b := bucketFor(l)
	return Ask{
		Node: node, Seq: f.next(node, b), Bucket: b, Limit: l, Held: quota.PeriodAt(&l, f.clock.Now()), Spent: spent, Want: want,
	}
}

// lease sends such a request.
func (f *fixture) lease(node quota.NodeID, l authz.Limit, spent, want int64) quota.Lease {
	f.Helper()
	return f.send(f.request(node, l, spent, want))
}

func (f *fixture) send(a Ask) quota.Lease {
	f.Helper()
	lease, err := f.try(a)
	if err != nil {
		f.Fatalf("lease: %v", err)
	}
	f.balance(a.Limit)
	return lease
}

// try sends a request as a node does: in a session.
func (f *fixture) try(a Ask) (quota.Lease, error) {
	f.Helper()
	f.renew(a.Node)
	return a.Send(f.Ctx(), f.ledger)
}

// refusal is the error of a request.
func (f *fixture) refusal(a Ask) error {
	f.Helper()
	_, err := f.try(a)
	return err
}

func (f *fixture) renew(node quota.NodeID) quota.Session {
	f.Helper()
	s, err := f.ledger.Renew(f.Ctx(), node, quota.Standing{})
	if err != nil {
		f.Fatalf("renew: %v", err)
	}
	return s
}

func (f *fixture) giveBack(node quota.NodeID, l authz.Limit, spent, units int64) {
	f.Helper()
	a := f.request(node, l, spent, 0)
	a.Back = units
	f.send(a)
}

func (f *fixture) settlement(id string, l authz.Limit, estimate, actual int64) quota.SettleRequest {
	return quota.SettleRequest{
		ID: id, Bucket: bucketFor(l), Limit: l, Period: quota.PeriodAt(&l, f.clock.Now()), Estimate: estimate, Actual: actual,
	}
}

func (f *fixture) settle(r quota.SettleRequest) quota.Settlement {
	f.Helper()
	s, err := f.ledger.Settle(f.Ctx(), r)
	if err != nil {
		f.Fatalf("settle: %v", err)
	}
	f.balance(r.Limit)
	return s
}

func (f *fixture) credit(id string, l authz.Limit, units int64) quota.Balance {
	f.Helper()
	b, err := f.ledger.Credit(f.Ctx(), quota.CreditRequest{ID: id, Bucket: bucketFor(l), Limit: l, Units: units, Note: "test"})
	if err != nil {
		f.Fatalf("credit: %v", err)
	}
	f.Same("the balance that credit returned", b, f.balance(l))
	return b
}

func (f *fixture) reset(id string, l authz.Limit) quota.Balance {
	f.Helper()
	b, err := f.ledger.Reset(f.Ctx(), quota.ResetRequest{ID: id, Bucket: bucketFor(l), Limit: l})
	if err != nil {
		f.Fatalf("reset: %v", err)
	}
	f.Same("the balance that reset returned", b, f.balance(l))
	return b
}

// balance returns the balance after it has checked the invariants.
func (f *fixture) balance(l authz.Limit) quota.Balance {
	f.Helper()
	b, err := f.ledger.Balance(f.Ctx(), bucketFor(l), l)
	if err != nil {
		f.Fatalf("balance: %v", err)
	}
	if err := Check(b); err != nil {
		f.Fatal(err)
	}
	return b
}

// Check returns an error if the sums of a balance are wrong.
func Check(b quota.Balance) error {
	var outstanding int64
	for node, n := range b.Outstanding {
		if n <= 0 {
			return authz.Errorf(authz.KindConflict, "node %q holds %d: %+v", node, n, b)
		}
		outstanding += n
	}
	if b.Granted != b.Spent+b.Returned+b.Stranded+outstanding {
		return authz.Errorf(authz.KindConflict, "granted is not spent + returned + stranded + outstanding: %+v", b)
	}
	if b.Free < 0 || b.Granted-b.Returned+b.Free > max(b.Allowance+b.Forgiven, b.Granted-b.Returned) {
		return authz.Errorf(authz.KindConflict, "more is free than the allowance leaves: %+v", b)
	}
	if b.Returned < 0 || b.Forgiven < 0 || b.Overage < 0 || b.Stranded < 0 || b.Granted < b.Returned {
		return authz.Errorf(authz.KindConflict, "a count is below zero: %+v", b)
	}
	return nil
}
