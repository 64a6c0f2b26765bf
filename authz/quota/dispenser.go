package quota

import (
	"context"
	"crypto/rand"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Dispenser serves reservations from leases in memory. A check that finds units in hand does no I/O and takes only its
// own bucket's lock; one that does not waits for a single call to the ledger, which it shares with all others that wait
// for the same bucket.
//
// It never hands out more than the ledger granted. What it holds when it dies is stranded until the period ends; what
// it holds when it is closed is given back.
type Dispenser struct {
	ledger Ledger
	node   NodeID
	now    func() time.Time

	seq  atomic.Uint64 // of requests to the ledger, one row for all buckets
	rid  atomic.Uint64 // of reservations
	taps sync.Map      // Bucket -> *tap

	calls  sync.WaitGroup // ledger calls in flight
	ctx    context.Context
	cancel context.CancelFunc
}

// callTimeout bounds one call to the ledger. It is longer than any check waits: the call goes on for those who come next.
const callTimeout = 5 * time.Second

// SweepEvery is how often the server calls Sweep: several times within the term of a lease.
const SweepEvery = LeaseTerm / 4

// NewDispenser makes a dispenser over a ledger. The node's name must never have been used before.
func NewDispenser(l Ledger, node NodeID, now func() time.Time) *Dispenser {
	ctx, cancel := context.WithCancel(context.Background())
	return &Dispenser{ledger: l, node: node, now: now, ctx: ctx, cancel: cancel}
}

// NewNodeID makes a name for this run of this process.
func NewNodeID(host string) NodeID { return NodeID(host + "-" + rand.Text()[:10]) }

// Peek reports the state of the limits. It takes nothing, but may lease units ahead of a reservation.
func (d *Dispenser) Peek(ctx context.Context, h authz.Holder, limits []authz.Limit) []authz.QuotaFact {
	facts := make([]authz.QuotaFact, len(limits))
	for i := range limits {
		facts[i] = d.withTap(h, &limits[i], func(t *tap) (authz.QuotaFact, bool) { return t.peek(ctx) })
	}
	return facts
}

// Reserve takes the charge from the limits, all or none. See check.Meter.
func (d *Dispenser) Reserve(ctx context.Context, h authz.Holder, limits []authz.Limit, c authz.Charge) (authz.Reservation, []authz.QuotaFact) {
	r := &reservation{d: d, n: d.rid.Add(1), parts: make([]part, 0, len(c))}
	facts := make([]authz.QuotaFact, len(limits))
	short := false
	for i := range limits {
		units := c[limits[i].Name]
		facts[i] = d.withTap(h, &limits[i], func(t *tap) (authz.QuotaFact, bool) {
			if units == 0 || short {
				return t.peek(ctx)
			}
			p, fact, alive := t.take(ctx, units)
			if p.units > 0 {
				r.parts = append(r.parts, p)
			}
			return fact, alive
		})
		short = short || facts[i].State != authz.QuotaOK && units > 0
	}
	if short {
		r.Cancel()
		return nil, facts
	}
	return r, facts
}

// withTap runs f on the tap of the limit's bucket. A tap that the sweep has just retired is replaced.
func (d *Dispenser) withTap(h authz.Holder, l *authz.Limit, f func(*tap) (authz.QuotaFact, bool)) authz.QuotaFact {
	b := BucketOf(l, h)
	for {
		v, ok := d.taps.Load(b)
		if !ok {
			v, _ = d.taps.LoadOrStore(b, &tap{d: d, bucket: b, limit: *l})
		}
		t := v.(*tap)
		t.adopt(l)
		if fact, alive := f(t); alive {
			fact.Name = l.Name
			return fact
		}
		d.taps.CompareAndDelete(b, t)
	}
}

// Report tells the ledger what was spent of that bucket, so that its balance is up to date, and learns what changed
// there, such as a credit. It does nothing for a bucket that is not in use here.
func (d *Dispenser) Report(ctx context.Context, b Bucket) error {
	v, ok := d.taps.Load(b)
	if !ok {
		return nil
	}
	return v.(*tap).report(ctx)
}

// Sweep tells the ledger what was spent, which renews the leases in use, and gives back those that were not used since
// the last sweep.
func (d *Dispenser) Sweep(ctx context.Context) {
	d.taps.Range(func(k, v any) bool {
		t := v.(*tap)
		if t.idle() {
			if t.retire(ctx) {
				d.taps.CompareAndDelete(k, t)
			}
		} else {
			_ = t.report(ctx) // the ledger is out of reach: leases in hand are served until they run out
		}
		return ctx.Err() == nil
	})
}

// Close gives all leases back. The dispenser must not be used afterwards. It returns an error if some could not be
// given back; those are stranded.
func (d *Dispenser) Close(ctx context.Context) error {
	left := 0
	d.taps.Range(func(k, v any) bool {
		if t := v.(*tap); t.retire(ctx) {
			d.taps.CompareAndDelete(k, t)
		} else {
			left++
		}
		return true
	})
	d.cancel()
	d.calls.Wait()
	if left > 0 {
		return authz.Errorf(authz.KindUnavailable, "%d leases could not be given back and stay charged", left)
	}
	return nil
}

// reservation is units taken from one or several taps for one request.
type reservation struct {
	d        *Dispenser
	n        uint64
	parts    []part
	canceled atomic.Bool
}

// part is what a reservation took from one tap.
type part struct {
	tap    *tap
	units  int64
	period Period
}

// ID is unique over all nodes and times.
func (r *reservation) ID() string { return string(r.d.node) + "." + strconv.FormatUint(r.n, 36) }

// Cancel gives the units back.
func (r *reservation) Cancel() {
	if r.canceled.Swap(true) {
		return
	}
	for i, p := range r.parts {
		if !p.tap.undo(p) {
			r.d.refund(r.ID()+"."+strconv.Itoa(i), p)
		}
	}
}

// refund gives units back that the ledger already knows as spent.
func (d *Dispenser) refund(id string, p part) {
	d.goCall(func(ctx context.Context) {
		_, _ = d.ledger.Settle(ctx, SettleRequest{
			ID: id, Bucket: p.tap.bucket, Limit: p.tap.terms(), Period: p.period, Estimate: p.units,
		})
	})
}

// goCall runs a call to the ledger that outlives the check that asked for it.
func (d *Dispenser) goCall(f func(ctx context.Context)) {
	d.calls.Add(1)
	go func() {
		defer d.calls.Done()
		ctx, cancel := context.WithTimeout(d.ctx, callTimeout)
		defer cancel()
		f(ctx)
	}()
}
