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
	// When the line was mended, and when the node last held nothing that can be taken.
	mended, emptyAt time.Time
	sweepAt         time.Time

	perPeriod map[int64]int64 // admitted, by the start of the period

	todo []func()             // calls to the ledger that are under way
	open []*authz.Reservation // reservations that may still be cancelled
	at   []int64              // the periods they were taken in
}

var holderOfSim = authz.Holder{Key: "k", Account: "a"}

// expired is the context of every request: in a simulation no request waits, it comes again.
var expired = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// boot starts the node as a new one, which knows nothing of what the one before held.
func (n *simNode) boot() {
	if p := n.w.page(); p != nil && n.d != nil && !quota.IsRate(&n.w.limit) {
		n.w.lost += p.Held[n.d.node].Units
	}
	if n.d != nil {
		delete(n.w.peers, n.d.node)
	}
	for period, units := range n.perPeriod {
		n.w.forgiven[period] += units
	}
	n.perPeriod = make(map[int64]int64)
	n.w.crashes++
	n.name = n.w.crashes
	n.todo, n.open, n.at = nil, nil, nil
	n.d = New(link{n, n.w}, quota.NodeID(fmt.Sprint(n.name)), func() time.Time { return n.w.now.Add(n.skew) })
	n.d.spawn = func(f func()) { n.todo = append(n.todo, f) }
}

// available is how many units the node could hand out.
func (n *simNode) available() int64 {
	if s := n.source(); s != nil && s.Good(n.d.now()) {
		return s.Available(n.w.limit.Units)
	}
	return 0
}

// source is what the node holds, nil for nothing.
func (n *simNode) source() *source {
	h := n.d.inUse(n.w.bucket.HolderID())
	if h == nil {
		return nil
	}
	if b := h.leaseOf(n.w.bucket.CountKey()); b != nil {
		return b.source.Load()
	}
	return nil
}

// ask has a client ask the node for one unit. If the node has to ask the ledger first, the client asks again when it has.
func (n *simNode) ask() {
	w := n.w
	w.asked++
	limits, charge := []authz.Limit{w.limit}, authz.Charge{w.limit.Name: 1}
	var facts [1]authz.QuotaFact
	for range 8 {
		ok := n.d.Reserve(expired, holderOfSim, limits, charge, facts[:], &w.last)
		switch {
		case ok && quota.IsRate(&w.limit):
			w.admitRate(n, facts[0])
			return
		case ok:
			w.admit(n)
			return
		case facts[0].State != authz.QuotaUnavailable && quota.IsRate(&w.limit):
			w.refused++
			return
		case facts[0].State != authz.QuotaUnavailable:
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

// link is a node's line to the ledger, with its faults.
type link struct {
	n *simNode
	*world
}

var errLine = errors.New("the line is down")

// through makes one call. The call may be lost, may arrive twice, and its answer may be lost.
func (l link) through(do func() error) error {
	l.calls++
	if l.n.cut || l.faulty && l.rng.IntN(50) == 0 {
		return errLine
	}
	err := do()
	if l.faulty && l.rng.IntN(50) == 0 {
		_ = do()
	}
	l.observe()
	if e := l.record.Check(); e != nil {
		l.failf("%v", e)
	}
	if l.faulty && l.rng.IntN(50) == 0 {
		return errLine
	}
	return err
}

func (l link) Renew(_ context.Context, node quota.NodeID, applied uint64) (out quota.Session, err error) {
	err = l.through(func() error {
		out = l.roll.Renew(node, applied, l.now)
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
			parts, err := l.record.Lease(&rs[i], l.at())
			out = append(out, quota.Answer{Parts: parts, Err: err})
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
	l.calls++
	if l.n.cut {
		return out, errLine
	}
	return l.book().Settle(r, l.now)
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
	return l.book().Balance(b, m, l.at()), nil
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
