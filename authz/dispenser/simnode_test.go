package dispenser

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// simNode is one node: a dispenser, its calls under way, and the faults of its clock and its line.
type simNode struct {
	w    *world
	name int
	d    *Dispenser
	skew time.Duration
	cut  bool
	// The node crashes: what it still has to say does not arrive, and is noted.
	dying bool
	// When the line was mended, and when the node last held nothing that can be taken.
	mended, emptyAt time.Time
	sweepAt         time.Time

	admitted map[*simBucket]map[int64]int64 // units, by the start of the period
	recent   map[*simBucket][]taking        // what clients took, the latest last
	todo     []func()                       // calls to the ledger that are under way
	open     []reserved                     // reservations that may still be cancelled
}

// taking is units that a client took.
type taking struct {
	at    time.Time
	units int64
}

// reserved is a reservation that is kept to be cancelled.
type reserved struct {
	r       *authz.Reservation
	buckets []*simBucket
	periods []int64 // in which the units were taken
	units   []int64
}

// cancel cancels the reservation, and counts it no more.
func (r *reserved) cancel(n *simNode) {
	r.r.Cancel()
	n.w.admitted--
	for i, b := range r.buckets {
		n.count(b, r.periods[i], -r.units[i])
	}
}

// expired is the context of every request: in a simulation no request waits, it comes again.
var expired = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// boot starts the node as a new one, which knows nothing of what the one before held.
func (n *simNode) boot() {
	if n.d != nil {
		n.loseRefunds()
		if n.w.takeovers != nil {
			n.w.takeovers.crashed(n)
		}
		for _, b := range n.w.buckets {
			n.lose(b)
		}
		delete(n.w.peers, n.d.node)
		if len(n.w.nodes) == 1 { // as in a process that has its ledger to itself, no session outlives it
			n.w.roll = quota.Roll{}
		}
	}
	n.admitted, n.recent = make(map[*simBucket]map[int64]int64), make(map[*simBucket][]taking)
	n.w.crashes++
	n.name = n.w.crashes
	n.todo, n.open = nil, nil
	n.d = New(link{n, n.w}, quota.NodeID(fmt.Sprint(n.name)), func() time.Time { return n.w.now.Add(n.skew) })
	n.d.spawn = func(f func()) { n.todo = append(n.todo, f) }
}

// loseRefunds counts units that clients got back, and of which the ledger will not hear.
func (n *simNode) loseRefunds() {
	n.dying = true
	for _, f := range slices.Clone(n.todo) {
		f()
	}
	_ = n.d.retryRefunds(expired)
	n.dying = false
}

// lose counts what a crash of the node costs a bucket.
func (n *simNode) lose(b *simBucket) {
	for period, units := range n.admitted[b] {
		b.forgiven[period] += units
	}
	if quota.IsRate(b.limit) {
		return
	}
	for _, p := range n.w.pages(b) {
		held := p.Held[n.d.node].Units
		n.w.lost += held
		if over := !p.Period.Forever() && !p.Period.End.After(n.w.now); held > 0 && !over && n.w.strandings != nil {
			n.w.strandings.add(n, b, p, held)
		}
	}
}

// count counts units that the node has handed out, or got back.
func (n *simNode) count(b *simBucket, period, units int64) {
	if n.admitted[b] == nil {
		n.admitted[b] = make(map[int64]int64)
	}
	b.perPeriod[period] += units
	n.admitted[b][period] += units
	if n.w.strandings != nil {
		n.recent[b] = append(n.recent[b], taking{n.w.now, units})
	}
}

// sweep has the dispenser sweep.
func (n *simNode) sweep() {
	if n.w.hoarding {
		_ = n.d.renew(expired)
		return
	}
	n.d.Sweep(expired)
	if n.w.negligent {
		for _, id := range n.d.idle.all() {
			n.d.idle.take(id, nil)
		}
	}
}

// available is how many units of a bucket the node could hand out.
func (n *simNode) available(b *simBucket) int64 {
	if s := n.source(b); s != nil && s.Good(n.d.now()) {
		return s.Available(b.limit.Units)
	}
	return 0
}

// source is what the node holds, nil for nothing.
func (n *simNode) source(b *simBucket) *source {
	h := n.d.inUse(b.HolderID())
	if h == nil {
		return nil
	}
	if l := h.leaseOf(b.CountKey()); l != nil {
		return l.source.Load()
	}
	return nil
}

// ask has a client ask the node, for one unit of each limit or for more of some. A few holders have most of the clients.
func (n *simNode) ask() {
	w := n.w
	who := w.rng.IntN(1 + w.rng.IntN(len(w.holders)))
	charge := make(authz.Charge)
	for i := range w.limits {
		charge[w.limits[i].Name] = 1
	}
	if !w.single() && w.rng.IntN(4) == 0 {
		delete(charge, w.limits[w.rng.IntN(len(w.limits))].Name)
		charge[w.limits[w.rng.IntN(len(w.limits))].Name] = 1 + w.rng.Int64N(5)
	}
	n.reserve(who, charge)
}

// reserve has a client of a holder ask the node. If the node has to ask the ledger first, the client asks again when it has.
func (n *simNode) reserve(who int, charge authz.Charge) {
	w := n.w
	w.asked++
	facts := make([]authz.QuotaFact, len(w.limits))
	for range 8 {
		if n.d.Reserve(expired, w.holders[who], w.limits, charge, facts, &w.last) {
			n.served(who, charge, facts)
			return
		}
		if w.partial {
			w.last = authz.Reservation{}
			n.keepOne(who, charge)
		}
		short := slices.IndexFunc(facts, func(f authz.QuotaFact) bool { return f.State != authz.QuotaOK })
		switch {
		case facts[short].State != authz.QuotaUnavailable && quota.IsRate(&w.limits[short]):
			w.refused++
			return
		case facts[short].State != authz.QuotaUnavailable:
			w.refuse(n)
			return
		case w.faulty && w.rng.IntN(20) == 0: // the client gives up while the call is under way
			w.timedOut++
			return
		}
		w.deliverAll()
	}
	w.timedOut++
}

// served counts what a client was given.
func (n *simNode) served(who int, charge authz.Charge, facts []authz.QuotaFact) {
	w := n.w
	w.admitted++
	r := reserved{}
	for i, b := range w.of[who] {
		units := charge[b.limit.Name]
		if units == 0 {
			continue
		}
		period := int64(0)
		if quota.IsRate(b.limit) {
			period = w.admitRate(n, b, facts[i], units)
		} else {
			period = w.admit(n, b, units)
		}
		r.buckets, r.periods, r.units = append(r.buckets, b), append(r.periods, period), append(r.units, units)
	}
	if w.faulty && w.rng.IntN(100) == 0 {
		kept := w.last
		w.last = authz.Reservation{}
		r.r = &kept
		n.open = append(n.open, r)
	}
}

// keepOne takes the charge of the first limit that has enough, as a request does that is refused and not undone.
func (n *simNode) keepOne(who int, charge authz.Charge) {
	for i := range n.w.limits {
		l := n.w.limits[i : i+1]
		if !quota.IsRate(&l[0]) && n.d.Reserve(expired, n.w.holders[who], l, charge, make([]authz.QuotaFact, 1), new(authz.Reservation)) {
			return
		}
	}
}

// link is a node's line to the ledger, with its faults.
type link struct {
	n *simNode
	*world
}

var errLine = errors.New("the line is down")

// through makes one call. The call may be lost, may arrive twice, and its answer may be lost.
func (l link) through(do func() error) error {
	l.calls++
	if l.n.cut || l.n.dying || l.faulty && l.rng.IntN(50) == 0 {
		return errLine
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err := do()
	if l.faulty && l.rng.IntN(50) == 0 {
		_ = do()
	}
	l.observe()
	if l.faulty && l.rng.IntN(50) == 0 {
		return errLine
	}
	return err
}

func (l link) Renew(_ context.Context, node quota.NodeID, s quota.Standing) (out quota.Session, err error) {
	err = l.through(func() error {
		l.noticed()
		out = l.roll.Renew(node, s, l.now)
		return nil
	})
	l.calls-- // it is no call for a reservation
	if l.forgetful {
		out.Term = 1000 * time.Hour
	}
	if l.greedy && out.View.Nodes > 1 {
		out.View.Nodes--
		out.View.Rank = min(out.View.Rank, out.View.Nodes-1)
	}
	if l.hasty && out.View.Nodes == 0 {
		out.View.Nodes, out.View.Rank = int64(len(l.roll.Members)), 0
	}
	return out, err
}

func (l link) Lease(_ context.Context, rs []quota.LeaseRequest) (out []quota.Answer, err error) {
	err = l.through(func() error {
		out = nil
		for i := range rs {
			record := l.record(rs[i].Holder)
			if l.silent {
				rs[i].Last = 0
			}
			a := record.Lease(&rs[i], l.at())
			if out = append(out, a); a.Lost {
				l.roll.Lost(l.now)
			}
			if err := record.Check(); err != nil {
				l.failf("%v", err)
			}
		}
		return nil
	})
	if l.faulty && l.rng.IntN(100) == 0 {
		l.world.old = append(l.world.old, rs...)
	}
	for i := range out {
		for j := range out[i].Parts {
			if l.alone {
				out[i].Parts[j].Elsewhere = 0
			}
			if l.lavish {
				out[i].Parts[j].Counted = 0
			}
		}
	}
	return out, err
}

// Settle is never repeated: the store makes sure that an ID counts once, and there is no store here.
func (l link) Settle(_ context.Context, r quota.SettleRequest) (out quota.Settlement, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.n.dying {
		l.unsure[unsure{r.Bucket, r.Period.Start.Unix()}] += r.Estimate
		return out, nil
	}
	if l.n.cut {
		return out, errLine
	}
	return l.book(r.Bucket).Settle(r, l.at())
}

func (l link) Credit(context.Context, quota.CreditRequest) (quota.Balance, error) {
	return quota.Balance{}, errLine
}

func (l link) Reset(context.Context, quota.ResetRequest) (quota.Balance, error) {
	return quota.Balance{}, errLine
}

func (l link) Release(context.Context, quota.ReleaseRequest) (quota.Balance, error) {
	return quota.Balance{}, errLine
}

func (l link) Balance(_ context.Context, b quota.Bucket, m authz.Limit) (quota.Balance, error) {
	return l.book(b).Balance(b, m, l.at()), nil
}

func (l link) Stranded(context.Context, func(quota.Stranding) bool) error { return nil }

func (l link) Forget(context.Context) (int, error) { return 0, nil }

// Join has others reach the node, which hears them through its line.
func (l link) Join(node quota.NodeID, p quota.Peer) (leave func()) {
	l.peers[node] = simPeer{l.n, p}
	return func() { delete(l.peers, node) }
}

// simPeer is a node as the others reach it.
type simPeer struct {
	n *simNode
	quota.Peer
}

// others is the nodes that a node reaches, in the order of their names, so that a simulation can be repeated exactly.
func (l link) others(node quota.NodeID) (out []simPeer) {
	for _, name := range slices.Sorted(maps.Keys(l.peers)) {
		if p := l.peers[name]; name != node && !p.n.cut && !l.n.cut {
			out = append(out, p)
		}
	}
	return out
}

// Recall does not wait for the ledger: what nodes give back is under way when it returns.
func (l link) Recall(_ context.Context, node quota.NodeID, b quota.Bucket) {
	for _, p := range l.others(node) {
		p.GiveBack(expired, b)
	}
	l.observe()
}

func (l link) Borrow(_ context.Context, node quota.NodeID, r quota.RateRequest) (got int64) {
	want := r.Units
	for _, p := range l.others(node) {
		if r.Units = want - got; r.Units <= 0 {
			break
		}
		n := p.Lend(r)
		if l.faulty && l.rng.IntN(50) == 0 {
			continue // the answer is lost
		}
		got += n
	}
	return got
}
