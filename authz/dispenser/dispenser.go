package dispenser

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/holding"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// Dispenser serves reservations from leases in memory. A check for which the node holds enough units does no I/O and takes
// no lock. Any other check waits for one call to the ledger, which it shares with all that wait for the same holder.
//
// It never hands out more than the ledger granted. What it holds when the process dies is stranded (quota.Balance); what it holds
// when it is closed is given back. Of a rate it never hands out more than the node's share, but a new process knows nothing
// of what the one before handed out in the second or minute that runs. Its methods may be called concurrently.
type Dispenser struct {
	ledger quota.Ledger
	node   quota.NodeID
	name   string // of the node
	// replaces is a node that is known to be dead.
	replaces quota.NodeID
	now      func() time.Time
	spawn    func(func()) // runs a call to the ledger in the background: go, except in the simulation

	seq     atomic.Uint64 // of requests to the ledger, one series for all holders
	rid     atomic.Uint64 // of reservations
	session *holding.Session
	views   atomic.Pointer[views] // that the shares of rates go by
	// restated is the session in which the ledger was told all that the node has. begun says that there is a later one,
	// or another view: others wait until the ledger knows that this node goes by it.
	restated atomic.Uint64
	begun    chan struct{}
	holders  *xsync.Map[quota.HolderID, *holder]
	idle     idleHolders

	mu       sync.Mutex
	renewing *flight               // the call that renews the session, nil if none is under way
	refunds  []quota.SettleRequest // that did not get through

	calls  sync.WaitGroup // ledger calls in flight
	ctx    context.Context
	cancel context.CancelFunc
	leave  func()
}

const (
	// callTimeout bounds one call to the ledger. It is longer than any check waits: later checks use the answer.
	callTimeout = 5 * time.Second
	// SweepEvery is how often Run calls Sweep: many times within the term of a session, and often enough that a caller
	// who stops leaves a large lease behind for no longer than that.
	SweepEvery = 5 * time.Second
	// maxRefunds bounds how many refunds wait for a ledger that is out of reach. The units of any further ones stay charged.
	maxRefunds = 100_000
)

// New makes a dispenser over a ledger. The node's name must never have been used before.
func New(l quota.Ledger, node quota.NodeID, now func() time.Time) *Dispenser {
	ctx, cancel := context.WithCancel(context.Background())
	d := &Dispenser{
		ledger: l, node: node, name: string(node), now: now, spawn: func(f func()) { go f() },
		begun:   make(chan struct{}, 1),
		session: holding.NewSession(now()), holders: xsync.NewMap[quota.HolderID, *holder](), ctx: ctx, cancel: cancel,
	}
	d.idle.began = now()
	d.views.Store(&views{learned: math.MinInt64})
	d.leave = l.Join(node, peer{d})
	return d
}

// NewNodeID makes a name for this run of this process.
func NewNodeID(host string) quota.NodeID { return quota.NodeID(host + "-" + rand.Text()[:10]) }

// Peek reports the state of the limits in facts, which has one for each. It takes nothing, but may lease units ahead of a
// reservation: for all limits at once, so that a caller who was not seen for long waits only for one call.
func (d *Dispenser) Peek(ctx context.Context, h authz.Holder, limits []authz.Limit, facts []authz.QuotaFact) {
	now := d.now()
	var cold [2]*holder // a caller has two holders at most: the key and the account
	for i := range limits {
		l := &limits[i]
		facts[i] = d.withHolder(h, l, func(at *holder) (authz.QuotaFact, bool) {
			if quota.IsRate(l) {
				return at.rate(l).peek(ctx, l, now)
			}
			f, known := at.lease(l).glance(l, now)
			if known {
				return f, true
			}
			if cold[0] == nil || cold[0] == at {
				cold[0] = at
			} else {
				cold[1] = at
			}
			return f, at.ask(l)
		})
	}
	if cold[0] == nil {
		return
	}
	if d.attend(ctx, now) == nil {
		d.startAll(cold[:])
	}
	for i := range limits {
		if l := &limits[i]; !quota.IsRate(l) {
			facts[i] = d.withHolder(h, l, func(at *holder) (authz.QuotaFact, bool) { return at.lease(l).peek(ctx, l) })
		}
	}
}

// Reserve takes the charge from the limits, all or none, and reports whether it did. It fills the reservation, and facts,
// which has one for each limit. See check.Meter.
func (d *Dispenser) Reserve(ctx context.Context, h authz.Holder, limits []authz.Limit, c authz.Charge, facts []authz.QuotaFact, r *authz.Reservation) bool {
	r.Begin(d.name, d.rid.Add(1))
	short := false
	for i := range limits {
		l := &limits[i]
		units := c[l.Name]
		if short {
			units = 0
		}
		facts[i] = d.withHolder(h, l, func(at *holder) (authz.QuotaFact, bool) { return at.charge(ctx, l, units, r) })
		short = short || facts[i].State != authz.QuotaOK && units > 0
	}
	if short {
		r.Cancel()
	}
	return !short
}

// withHolder runs f on the holder that is charged for the limit. If f reports that the holder is not alive, because a sweep has
// just put it away, f runs again.
func (d *Dispenser) withHolder(h authz.Holder, l *authz.Limit, f func(*holder) (authz.QuotaFact, bool)) authz.QuotaFact {
	id := quota.HolderOf(l, h)
	for {
		at := d.holderOf(id)
		if !at.used.Load() {
			at.used.Store(true)
		}
		if fact, alive := f(at); alive {
			fact.Name = l.Name
			return fact
		}
	}
}

// holderOf is the holder of that name: the one in use, one that was put away, or a new one.
func (d *Dispenser) holderOf(id quota.HolderID) *holder {
	if h, ok := d.holders.Load(id); ok {
		return h
	}
	h, _ := d.holders.Compute(id, func(at *holder, there bool) (*holder, xsync.ComputeOp) {
		if there {
			return at, xsync.CancelOp
		}
		return d.wake(id), xsync.UpdateOp
	})
	return h
}

// inUse is the holder of that name, nil if the node has nothing of it.
func (d *Dispenser) inUse(id quota.HolderID) *holder {
	if h, ok := d.holders.Load(id); ok {
		return h
	}
	if !d.idle.has(id) {
		return nil
	}
	return d.holderOf(id)
}

// Rate is the state of a rate on this node. It takes nothing and asks no other node, but waits until this one has a session: before
// that its share is 0, and nothing would seem to be left.
func (d *Dispenser) Rate(ctx context.Context, h authz.Holder, l *authz.Limit) (authz.QuotaFact, error) {
	if err := d.attend(ctx, d.now()); err != nil {
		return authz.QuotaFact{}, err
	}
	return d.withHolder(h, l, func(at *holder) (authz.QuotaFact, bool) { return at.rate(l).state(l, d.now()) }), nil
}

// Report tells the ledger what this node spent of a bucket, so that the balance there is up to date. It learns what changed
// there, such as a credit, and what the limit grants now. It does nothing for a bucket that is not in use here.
func (d *Dispenser) Report(ctx context.Context, bucket quota.Bucket, l *authz.Limit) error {
	for {
		h := d.inUse(bucket.HolderID())
		if h == nil {
			return nil
		}
		if alive, err := h.report(ctx, bucket.CountKey(), l); alive {
			return err
		}
	}
}

// Close returns all leases. The dispenser must not be used afterwards. It returns an error if some leases could not be
// returned; their units are stranded.
func (d *Dispenser) Close(ctx context.Context) error {
	err := errors.Join(d.retryRefunds(ctx), d.returnAll(ctx))
	d.leave()
	d.cancel()
	d.calls.Wait()
	for _, h := range d.holders.All() { // until it left, other nodes asked for units of rates, of which nothing is leased
		h.forget()
	}
	if n := d.holders.Size() + d.idle.size(); n > 0 {
		return authz.Errorf(authz.KindUnavailable, "the leases of %d holders could not be given back and stay charged: %w", n, cmp.Or(err, errLate))
	}
	return err
}

var errLate = errors.New("they were leased in the end")

// newID is an id for a refund that belongs to no reservation.
func (d *Dispenser) newID() string { return d.name + "." + strconv.FormatUint(d.rid.Add(1), 36) }

// refund returns units that the ledger already knows as spent. A refund that does not get through is repeated by the sweep.
func (d *Dispenser) refund(r quota.SettleRequest) {
	r.Node = d.node
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
