package quotatest

import (
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
	for _, test := range []struct {
		name string
		run  func(*fixture)
	}{
		{"lease grants up to the allowance", leaseGrants},
		{"lease keeps what is held and books what was spent", leaseBooks},
		{"lease of nothing is a report", leaseOfNothing},
		{"lease repeated returns the first answer", leaseRepeated},
		{"lease with a lower seq is refused", leaseLate},
		{"seqs are counted for each node and bucket", seqsApart},
		{"more spent than held is overage", leaseOverage},
		{"return gives back what is held and no more", returns},
		{"return repeated counts once", returnRepeated},
		{"period that ends starts a new one", periodEnds},
		{"period before the running one takes late reports", lateReport},
		{"period older than that is dropped", droppedReport},
		{"clock that goes back opens no period again", clockBack},
		{"books are forgotten when nothing depends on them", forgets},
		{"clock that was far ahead leaves nothing behind", clockWrong},
		{"report of a period that a wrong clock opened", clockWrongReports},
		{"clock that was far behind grants nothing twice", clockBehind},
		{"several limits are one request", manyParts},
		{"several requests are one call", manyRequests},
		{"units of a node whose session is over are stranded", strands},
		{"node that comes back has its lease again", comesBack},
		{"prepaid units of such a node are refunded if the limit says so", refundsOnCrash},
		{"prepaid balances have no period", prepaidStays},
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
		{"invalid requests change nothing", invalid},
		{"buckets are apart", bucketsApart},
		{"balance of an unused bucket", balanceUnused},
		{"plan lowered keeps what was granted", planLowered},
		{"rates are refused", rates},
		{"window changed carries the usage over", windowChanged},
		{"window changed keeps prepaid balances", windowPrepaid},
		{"lease says who shares the bucket", sharing},
		{"sessions", sessions},
		{"a node that joins waits until the others make room", joins},
		{"borrow asks other nodes until there is enough", borrows},
		{"recall asks every other node", recallsAll},
		{"recall frees units", recallFrees},
		{"recall ends with its context", recallEnds},
		{"many nodes never lease more than the allowance", manyNodes},
		{"many copies of one request count once", manyCopies},
		{"many buckets at once", manyBuckets},
		{"random verbs answer as the oracle does", random},
	} {
		t.Run(test.name, func(t *testing.T) {
			clock := NewClock()
			test.run(&fixture{Fixture: storetest.Fixture{T: t}, clock: clock, ledger: open(t, clock.Now), seqs: make(map[seqKey]uint64)})
		})
	}
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
	return quota.Bucket{Per: l.Per, Holder: "holder", Limit: l.Name}
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
