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

// Dispenser serves reservations from leases in memory. A check for which the node holds enough units does no I/O and takes
// no lock. Any other check waits for one call to the ledger, which it shares with all that wait for the same
// bucket.
//
// It never hands out more than the ledger granted. What it holds when the process dies is stranded until the period ends;
// what it holds when it is closed is given back. Its methods may be called concurrently.
type Dispenser struct {
	ledger quota.Ledger
	node   quota.NodeID
	name   string // of the node
	now    func() time.Time
	base   time.Time    // when the dispenser was made: leases run out by the time since, so steps of the wall clock do not count
	spawn  func(func()) // runs a call to the ledger in the background: go, except in the simulation

	seq    atomic.Uint64 // of requests to the ledger, one series for all buckets
	rid    atomic.Uint64 // of reservations
	leases *xsync.Map[bucketKey, *bucketLease]

	mu      sync.Mutex
	refunds []quota.SettleRequest // that did not get through

	calls       sync.WaitGroup // ledger calls in flight
	ctx         context.Context
	cancel      context.CancelFunc
	stopRecalls func()
}

const (
	// callTimeout bounds one call to the ledger. It is longer than any check waits: later checks use the answer.
	callTimeout = 5 * time.Second
	// SweepEvery is how often the server calls Sweep: several times within the term of a lease.
	SweepEvery = quota.LeaseTerm / 4
	// atOnce is how many calls a sweep has under way: a store commits what waits at the same time with one fsync.
	atOnce = 128
	// maxRefunds bounds how many refunds wait for a ledger that is out of reach. The units of any further ones stay charged.
	maxRefunds = 100_000
)

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

// giveBack returns what this node holds of a bucket of which another node has nothing left.
func (d *Dispenser) giveBack(ctx context.Context, bucket quota.Bucket) {
	if b, ok := d.leases.Load(keyOfBucket(bucket)); ok {
		b.giveBack(ctx)
	}
}

// NewNodeID makes a name for this run of this process.
func NewNodeID(host string) quota.NodeID { return quota.NodeID(host + "-" + rand.Text()[:10]) }

// Peek reports the state of the limits in facts, which has one for each. It takes nothing, but may lease units ahead of a
// reservation: for all limits at once, so that a key that was not used for long waits only for one call.
func (d *Dispenser) Peek(ctx context.Context, h authz.Holder, limits []authz.Limit, facts []authz.QuotaFact) {
	allKnown, now := true, d.now()
	for i := range limits {
		l := &limits[i]
		facts[i] = d.withLease(h, l, func(b *bucketLease) (authz.QuotaFact, bool) {
			f, known := b.glance(l, now)
			if known {
				return f, true
			}
			allKnown = false
			return f, b.warm(l)
		})
	}
	if allKnown {
		return
	}
	for i := range limits {
		facts[i] = d.withLease(h, &limits[i], func(b *bucketLease) (authz.QuotaFact, bool) { return b.peek(ctx, &limits[i]) })
	}
}

// Reserve takes the charge from the limits, all or none, and reports whether it did. It fills the reservation, and facts,
// which has one for each limit. See check.Meter.
func (d *Dispenser) Reserve(ctx context.Context, h authz.Holder, limits []authz.Limit, c authz.Charge, facts []authz.QuotaFact, r *authz.Reservation) bool {
	r.Begin(d.name, d.rid.Add(1))
	short := false
	for i := range limits {
		units := c[limits[i].Name]
		facts[i] = d.withLease(h, &limits[i], func(b *bucketLease) (authz.QuotaFact, bool) {
			if units == 0 || short {
				return b.peek(ctx, &limits[i])
			}
			from, fact, alive := b.take(ctx, &limits[i], units)
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

// withLease runs f on the lease of the limit's bucket. If f reports that the lease is not alive, because a sweep has just
// retired it, f runs on a new one.
func (d *Dispenser) withLease(h authz.Holder, l *authz.Limit, f func(*bucketLease) (authz.QuotaFact, bool)) authz.QuotaFact {
	key := keyOf(l, h)
	for {
		b, ok := d.leases.Load(key)
		if !ok {
			b, _ = d.leases.LoadOrStore(key, newBucketLease(d, quota.BucketOf(l, h), l))
		}
		b.adopt(l)
		if fact, alive := f(b); alive {
			fact.Name = l.Name
			return fact
		}
		d.forget(b)
	}
}

// forget deletes a retired lease, unless another one took its place.
func (d *Dispenser) forget(b *bucketLease) {
	d.leases.Compute(keyOfBucket(b.bucket), func(at *bucketLease, there bool) (*bucketLease, xsync.ComputeOp) {
		if there && at == b {
			return nil, xsync.DeleteOp
		}
		return at, xsync.CancelOp
	})
}

// Report tells the ledger what this node spent of a bucket, so that the balance there is up to date. It learns what changed
// there, such as a credit, and what the limit grants now. It does nothing for a bucket that is not in use here.
func (d *Dispenser) Report(ctx context.Context, bucket quota.Bucket, l *authz.Limit) error {
	b, ok := d.leases.Load(keyOfBucket(bucket))
	if !ok {
		return nil
	}
	return b.report(ctx, l)
}

// Sweep renews the leases in use, returns those that were not used since the last sweep, and repeats refunds that did not get
// through. It stops at the first call that fails: the leases stay in use until they run out.
func (d *Dispenser) Sweep(ctx context.Context) {
	if d.retryRefunds(ctx) == nil {
		_ = d.each(ctx, func(ctx context.Context, b *bucketLease) error { return b.sweep(ctx) })
	}
}

// Close returns all leases. The dispenser must not be used afterwards. It returns an error if some leases could not be
// returned; their units are stranded.
func (d *Dispenser) Close(ctx context.Context) error {
	err := errors.Join(d.retryRefunds(ctx), d.each(ctx, func(ctx context.Context, b *bucketLease) error { return b.retire(ctx) }))
	d.stopRecalls()
	d.cancel()
	d.calls.Wait()
	if n := d.leases.Size(); n > 0 {
		return authz.Errorf(authz.KindUnavailable, "%d leases could not be given back and stay charged: %w", n, err)
	}
	return err
}

// each runs f on every lease, several at once, and stops at the first error.
func (d *Dispenser) each(ctx context.Context, f func(context.Context, *bucketLease) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, b := range d.leases.All() {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return f(ctx, b) })
	}
	return g.Wait()
}

// refund returns units that the ledger already knows as spent. A refund that does not get through is repeated by the sweep.
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
