package dispenser

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
	"golang.org/x/sync/errgroup"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// Dispenser serves reservations from leases in memory. A check that finds units in hand does no I/O and takes no lock;
// one that does not waits for a single call to the ledger, which it shares with all others that wait for the same
// bucket.
//
// It never hands out more than the ledger granted. What it holds when it dies is stranded until the period ends; what
// it holds when it is closed is given back.
type Dispenser struct {
	ledger quota.Ledger
	node   quota.NodeID
	name   string // of the node
	now    func() time.Time
	base   time.Time    // when the dispenser was made
	spawn  func(func()) // runs a call to the ledger beside everything else; go, but in the simulation

	seq    atomic.Uint64 // of requests to the ledger, one row for all buckets
	rid    atomic.Uint64 // of reservations
	leases *xsync.Map[bucketKey, *bucketLease]

	mu      sync.Mutex
	refunds []quota.SettleRequest // that did not get through

	calls       sync.WaitGroup // ledger calls in flight
	ctx         context.Context
	cancel      context.CancelFunc
	stopRecalls func()
}

// callTimeout bounds one call to the ledger. It is longer than any check waits: the call goes on for those who come next.
const callTimeout = 5 * time.Second

// SweepEvery is how often the server calls Sweep: several times within the term of a lease.
const SweepEvery = quota.LeaseTerm / 4

// New makes a dispenser over a ledger. The node's name must never have been used before.
func New(l quota.Ledger, node quota.NodeID, now func() time.Time) *Dispenser {
	ctx, cancel := context.WithCancel(context.Background())
	d := &Dispenser{
		ledger: l, node: node, name: string(node), now: now, base: now(), spawn: func(f func()) { go f() },
		leases: xsync.NewMap[bucketKey, *bucketLease](), ctx: ctx, cancel: cancel,
	}
	d.stopRecalls = l.OnRecall(node, d.giveBack)
	return d
}

// giveBack returns what is in hand of a bucket of which another node has nothing left.
func (d *Dispenser) giveBack(ctx context.Context, b quota.Bucket) {
	if t, ok := d.leases.Load(keyOfBucket(b)); ok {
		t.giveBack(ctx)
	}
}

// NewNodeID makes a name for this run of this process.
func NewNodeID(host string) quota.NodeID { return quota.NodeID(host + "-" + rand.Text()[:10]) }

// Peek reports the state of the limits in facts, which has one for each. It takes nothing, but may lease units ahead of a
// reservation: for all limits at once, so that a key that was not seen for long waits as long as one call takes.
func (d *Dispenser) Peek(ctx context.Context, h authz.Holder, limits []authz.Limit, facts []authz.QuotaFact) {
	cold, now := false, d.now()
	for i := range limits {
		var known bool
		if facts[i], known = d.glance(h, &limits[i], now); !known {
			cold = true
		}
	}
	if !cold {
		return
	}
	for i := range limits {
		facts[i] = d.withLease(h, &limits[i], func(t *bucketLease) (authz.QuotaFact, bool) { return t.peek(ctx, &limits[i]) })
	}
}

// glance reports the state of a limit if it is known without asking the ledger, and else sees to it that the ledger is
// asked.
func (d *Dispenser) glance(h authz.Holder, l *authz.Limit, now time.Time) (fact authz.QuotaFact, known bool) {
	fact = d.withLease(h, l, func(t *bucketLease) (authz.QuotaFact, bool) {
		var f authz.QuotaFact
		if f, known = t.glance(l, now); known {
			return f, true
		}
		return f, t.warm(l)
	})
	return fact, known
}

// Reserve takes the charge from the limits, all or none, and reports whether it did. It fills the reservation, and facts,
// which has one for each limit. See check.Meter.
func (d *Dispenser) Reserve(ctx context.Context, h authz.Holder, limits []authz.Limit, c authz.Charge, facts []authz.QuotaFact, r *authz.Reservation) bool {
	r.Begin(d.name, d.rid.Add(1))
	short := false
	for i := range limits {
		units := c[limits[i].Name]
		facts[i] = d.withLease(h, &limits[i], func(t *bucketLease) (authz.QuotaFact, bool) {
			if units == 0 || short {
				return t.peek(ctx, &limits[i])
			}
			from, fact, alive := t.take(ctx, &limits[i], units)
			if from != nil {
				r.Add(from, units)
			}
			return fact, alive
		})
		short = short || facts[i].State != authz.QuotaOK && units > 0
	}
	if short {
		r.Cancel()
	}
	return !short
}

// withLease runs f on the tap of the limit's bucket. A tap that the sweep has just retired is replaced.
func (d *Dispenser) withLease(h authz.Holder, l *authz.Limit, f func(*bucketLease) (authz.QuotaFact, bool)) authz.QuotaFact {
	key := keyOf(l, h)
	for {
		t, ok := d.leases.Load(key)
		if !ok {
			t, _ = d.leases.LoadOrStore(key, newBucketLease(d, quota.BucketOf(l, h), l))
		}
		t.adopt(l)
		if fact, alive := f(t); alive {
			fact.Name = l.Name
			return fact
		}
		d.forget(t)
	}
}

// forget takes a dead tap off the map.
func (d *Dispenser) forget(t *bucketLease) {
	d.leases.Compute(keyOfBucket(t.bucket), func(at *bucketLease, there bool) (*bucketLease, xsync.ComputeOp) {
		if there && at == t {
			return nil, xsync.DeleteOp
		}
		return at, xsync.CancelOp
	})
}

// Report tells the ledger what was spent of that bucket, so that its balance is up to date, and learns what changed
// there, such as a credit, and what the limit grants now. It does nothing for a bucket that is not in use here.
func (d *Dispenser) Report(ctx context.Context, b quota.Bucket, l *authz.Limit) error {
	t, ok := d.leases.Load(keyOfBucket(b))
	if !ok {
		return nil
	}
	return t.report(ctx, l)
}

// Sweep renews the leases in use, gives back those that were not used since the last sweep, and repeats refunds that did
// not get through. It stops at the first call that does not: leases in hand are served until they run out.
func (d *Dispenser) Sweep(ctx context.Context) {
	if d.retryRefunds(ctx) == nil {
		_ = d.each(ctx, func(ctx context.Context, t *bucketLease) error { return t.sweep(ctx) })
	}
}

// Close gives all leases back. The dispenser must not be used afterwards. It returns an error if some could not be
// given back; those are stranded.
func (d *Dispenser) Close(ctx context.Context) error {
	err := errors.Join(d.retryRefunds(ctx), d.each(ctx, func(ctx context.Context, t *bucketLease) error { return t.retire(ctx) }))
	d.stopRecalls()
	d.cancel()
	d.calls.Wait()
	if n := d.leases.Size(); n > 0 {
		return authz.Errorf(authz.KindUnavailable, "%d leases could not be given back and stay charged: %w", n, err)
	}
	return err
}

// atOnce is how many calls a sweep has under way: a store commits what waits at the same time with one fsync.
const atOnce = 128

// each runs f on every tap, several at once, and stops at the first error.
func (d *Dispenser) each(ctx context.Context, f func(context.Context, *bucketLease) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, t := range d.leases.All() {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return f(ctx, t) })
	}
	return g.Wait()
}

// refund gives units back that the ledger already knows as spent. What does not get through is repeated by the sweep.
func (d *Dispenser) refund(r quota.SettleRequest) {
	d.goCall(func(ctx context.Context) {
		if _, err := d.ledger.Settle(ctx, r); authz.KindOf(err) == authz.KindUnavailable && err != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			if len(d.refunds) < maxRefunds {
				d.refunds = append(d.refunds, r)
			}
		}
	})
}

// maxRefunds bounds how many refunds wait for a ledger that is out of reach; beyond it units stay charged.
const maxRefunds = 100_000

// retryRefunds repeats the refunds that did not get through, until one fails again.
func (d *Dispenser) retryRefunds(ctx context.Context) error {
	d.mu.Lock()
	waiting := d.refunds
	d.refunds = nil
	d.mu.Unlock()
	for i, r := range waiting {
		if _, err := d.ledger.Settle(ctx, r); err != nil && authz.KindOf(err) == authz.KindUnavailable {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.refunds = append(d.refunds, waiting[i:]...)
			return err
		}
	}
	return nil
}

// send makes one call to the ledger.
func (d *Dispenser) send(ctx context.Context, r request) (quota.Lease, error) {
	if r.isReturn {
		return quota.Lease{}, d.ledger.Return(ctx, quota.ReturnRequest{
			Node: r.Node, Seq: r.Seq, Bucket: r.Bucket, Limit: r.Limit, Held: r.Held, Spent: r.Spent, Units: r.back,
		})
	}
	return d.ledger.Lease(ctx, r.LeaseRequest)
}

// goCall runs a call to the ledger that outlives the check that asked for it.
func (d *Dispenser) goCall(f func(ctx context.Context)) {
	d.calls.Add(1)
	d.spawn(func() {
		defer d.calls.Done()
		ctx, cancel := context.WithTimeout(d.ctx, callTimeout)
		defer cancel()
		f(ctx)
	})
}
