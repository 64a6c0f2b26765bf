package dispenser

import (
	"context"
	"errors"
	"fmt"
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
	if p := n.w.page(); p != nil && n.d != nil {
		n.w.lost += p.Held[n.d.node].Units
	}
	if n.d != nil {
		n.d.stopRecalls()
	}
	n.w.crashes++
	n.name = n.w.crashes
	n.todo, n.open, n.at = nil, nil, nil
	n.d = New(link{n, n.w}, quota.NodeID(fmt.Sprint(n.name)), func() time.Time { return n.w.now.Add(n.skew) })
	n.d.spawn = func(f func()) { n.todo = append(n.todo, f) }
}

// available is how many units the node could hand out.
func (n *simNode) available() int64 {
	t, ok := n.d.leases.Load(keyOfBucket(n.w.bucket))
	if !ok {
		return 0
	}
	if s := t.source.Load(); s.Good(n.d.now()) {
		return s.Available(n.w.limit.Units)
	}
	return 0
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
		case ok:
			w.admit(n)
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
	if e := l.book.Check(); e != nil {
		l.failf("%v", e)
	}
	if l.faulty && l.rng.IntN(50) == 0 {
		return errLine
	}
	return err
}

func (l link) Lease(_ context.Context, r quota.LeaseRequest) (out quota.Lease, err error) {
	err = l.through(func() (err error) {
		out, err = l.book.Lease(r, l.now)
		return err
	})
	if l.faulty && l.rng.IntN(100) == 0 {
		l.world.old = append(l.world.old, r)
	}
	if l.forgetful {
		out.Until = 1000 * time.Hour
	}
	if l.alone {
		out.Elsewhere = 0
	}
	if l.lavish {
		out.Counted = 0
	}
	return out, err
}

func (l link) Return(_ context.Context, r quota.ReturnRequest) error {
	return l.through(func() error { return l.book.Return(r, l.now) })
}

// Settle is never repeated: the store makes sure that an ID counts once, and there is no store here.
func (l link) Settle(_ context.Context, r quota.SettleRequest) (out quota.Settlement, err error) {
	l.calls++
	if l.n.cut {
		return out, errLine
	}
	return l.book.Settle(r, l.now)
}

func (l link) Credit(context.Context, quota.CreditRequest) (quota.Balance, error) {
	return quota.Balance{}, errLine
}

func (l link) Reset(context.Context, quota.ResetRequest) (quota.Balance, error) {
	return quota.Balance{}, errLine
}

func (l link) Balance(_ context.Context, b quota.Bucket, m authz.Limit) (quota.Balance, error) {
	return l.book.Balance(b, m, l.now), nil
}

func (l link) Forget(context.Context) (int, error) { return 0, nil }

// OnRecall hears what comes through the node's line. The node does not wait for the ledger: what it gives back is under
// way when the recall returns.
func (l link) OnRecall(node quota.NodeID, giveBack func(context.Context, quota.Bucket)) (stop func()) {
	return l.recalls.OnRecall(node, func(_ context.Context, b quota.Bucket) {
		if !l.n.cut {
			giveBack(expired, b)
		}
	})
}

func (l link) Recall(_ context.Context, node quota.NodeID, b quota.Bucket) {
	if !l.n.cut {
		l.recalls.Recall(context.Background(), node, b)
		l.observe()
	}
}
