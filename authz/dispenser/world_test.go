package dispenser

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/holding"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// world is one simulated installation.
type world struct {
	rng    *rand.Rand
	seed   uint64
	limit  authz.Limit
	bucket quota.Bucket
	now    time.Time
	record quota.Record
	roll   quota.Roll
	peers  map[quota.NodeID]simPeer
	nodes  []*simNode
	faulty bool
	// Three ways to break dispensers, which the simulation has to notice: they believe that leases have no term, that no other
	// node holds units, or that all units they hold may be spent after the limit was lowered.
	forgetful, alone, lavish bool
	// Two ways to break the membership, which the simulation of rates has to notice: nodes believe that there is one less of
	// them, or do not wait when they join.
	greedy, hasty bool
	lowered       bool      // the plan was changed, to fewer units
	fault         string    // the first property that did not hold
	dryAt         time.Time // when the ledger last had nothing to grant

	asked, admitted, refused, timedOut, calls, crashes int
	lost                                               int64                // units that nodes held when they crashed
	last                                               authz.Reservation    // the latest
	perPeriod                                          map[int64]int64      // admitted, by the start of the period
	forgiven                                           map[int64]int64      // of a rate: admitted by nodes that are gone
	old                                                []quota.LeaseRequest // to be delivered again, late
}

func newWorld(seed uint64, nodes int, l authz.Limit, faulty bool) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), seed: seed, limit: l, bucket: quota.BucketOf(&l, holderOfSim), faulty: faulty,
		now: time.Date(2026, 3, 29, 0, 59, 0, 0, time.UTC), perPeriod: make(map[int64]int64), forgiven: make(map[int64]int64), peers: make(map[quota.NodeID]simPeer),
	}
	for range nodes {
		n := &simNode{w: w, skew: time.Duration(w.rng.IntN(4000)-2000) * time.Millisecond}
		n.boot()
		w.nodes = append(w.nodes, n)
	}
	return w
}

func (w *world) failf(format string, args ...any) {
	if w.fault == "" {
		w.fault = fmt.Sprintf("seed %d: ", w.seed) + fmt.Sprintf(format, args...)
	}
}

// run takes steps until that many reservations were asked for or something is wrong.
func (w *world) run(asks int) {
	for w.asked < asks && w.fault == "" {
		w.step()
	}
}

// step does one thing, drawn at random.
func (w *world) step() {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if w.rng.IntN(3) > 0 { // some nodes have more clients than others
		n = w.nodes[w.rng.IntN(1+len(w.nodes)/3)]
	}
	switch p := w.rng.IntN(10_000); {
	case p < 9700:
		for range 1 + w.rng.IntN(20)*w.rng.IntN(2) {
			n.ask()
		}
		w.now = w.now.Add(time.Duration(w.rng.IntN(1000)) * time.Microsecond)
	case p < 9800:
		w.deliverAll()
	case p < 9840:
		w.now = w.now.Add(time.Duration(w.rng.IntN(3000)) * time.Millisecond)
	case p < 9880:
		n.d.Sweep(expired)
	case !w.faulty:
	case p < 9900:
		n.cut, n.mended = !n.cut, w.now
	case p < 9910:
		n.boot()
	case p < 9960 && len(n.open) > 0:
		last := len(n.open) - 1
		n.open[last].Cancel()
		w.perPeriod[n.at[last]]--
		n.perPeriod[n.at[last]]--
		w.admitted--
		n.open, n.at = n.open[:last], n.at[:last]
	case p < 9970 && len(w.old) > 0: // a copy that arrives very late
		r := w.old[w.rng.IntN(len(w.old))]
		_, _ = w.record.Lease(&r, w.at())
	case p < 9971 && !w.lowered && !quota.IsRate(&w.limit): // for all nodes at once
		w.lowered, w.limit.Units = true, w.rng.Int64N(w.limit.Units+1)
	case p < 9972 && w.lowered:
		w.limit.Units += w.rng.Int64N(w.limit.Units + 100)
	case p < 9975:
		w.now = w.now.Add(time.Duration(w.rng.IntN(150)) * time.Second)
	}
	for _, n := range w.nodes {
		if !w.now.Before(n.sweepAt) {
			n.d.Sweep(expired)
			n.sweepAt = w.now.Add(SweepEvery)
		}
	}
	if err := w.record.Check(); err != nil {
		w.failf("%v", err)
	}
}

// deliverAll lets every call that is under way go through, except those that are late.
func (w *world) deliverAll() {
	for _, n := range w.nodes {
		for range len(n.todo) {
			if w.faulty && w.rng.IntN(10) == 0 {
				break
			}
			f := n.todo[0]
			n.todo = n.todo[1:]
			f()
		}
	}
}

// at is the ledger's instant.
func (w *world) at() quota.Instant {
	return quota.Instant{Time: w.now, Alive: func(n quota.NodeID) bool { return w.roll.Alive(n, w.now) }}
}

// book is the ledger's book of the bucket.
func (w *world) book() *quota.Book { return w.record.Book(w.bucket.CountKey()) }

// page is the one that counts now.
func (w *world) page() *quota.Page {
	if w.limit.Window == authz.WindowNone {
		return w.book().Prepaid
	}
	return w.book().Current
}

// pageOf is the page of a period, nil if the ledger has dropped it.
func (w *world) pageOf(p quota.Period) *quota.Page {
	for _, page := range []*quota.Page{w.book().Current, w.book().Previous, w.book().Prepaid} {
		if page != nil && page.Period.Same(p) {
			return page
		}
	}
	return nil
}

// observe notes where no units are left.
func (w *world) observe() {
	if w.book().Balance(w.bucket, w.limit, w.at()).Free == 0 {
		w.dryAt = w.now
	}
	for _, n := range w.nodes {
		if n.available() == 0 {
			n.emptyAt = w.now
		}
	}
}

// refuse checks what has to be true when a client is told that nothing is left: see holding.Recheck.
func (w *world) refuse(n *simNode) {
	w.refused++
	w.observe()
	long := func(since time.Time) bool { return w.now.Sub(since) >= holding.Recheck }
	if long(w.dryAt) {
		w.failf("node %s refused at %v, and the ledger had units since %v", n.d.node, w.now, w.dryAt)
	}
	if n.cut || !long(n.mended) {
		return // it reaches no other node, or did not when it last recalled
	}
	for _, m := range w.nodes {
		if m != n && !m.cut && long(m.mended) && long(m.emptyAt) {
			w.failf("node %s refused at %v, and node %s held %d units since %v", n.d.node, w.now, m.d.node, m.available(), m.emptyAt)
		}
	}
}

// admit counts what was just reserved.
func (w *world) admit(n *simNode) {
	w.admitted++
	held := n.source().Period
	period := held.Start.Unix()
	w.count(n, period)
	// A crash refunds units that may have been used: such a limit is meant to.
	if got := w.perPeriod[period]; got > w.limit.Units && !w.limit.RefundOnCrash {
		w.failf("%d of %d admitted in the period from %d", got, w.limit.Units, period)
	}
	// No node serves from a lease that the ledger counts as over, whatever the clocks say.
	if p := w.pageOf(held); p != nil {
		if h := p.Held[n.d.node]; h.Units < 1 || !w.roll.Alive(n.d.node, w.now) {
			w.failf("node %s served from a lease that is over: %+v at %v", n.d.node, h, w.now)
		}
	}
}

// admitRate counts what was just taken of a rate: what is taken in one period is never more than the limit and what nodes took in
// it that have gone since.
func (w *world) admitRate(n *simNode, f authz.QuotaFact) {
	w.admitted++
	period := f.ResetsAt.Add(-f.Window).Unix()
	w.count(n, period)
	if got := w.perPeriod[period]; got > w.limit.Units+w.forgiven[period] {
		w.failf("%d of %d admitted in the period from %d, in which nodes that are gone used %d", got, w.limit.Units, period, w.forgiven[period])
	}
}

// count counts the unit that a node has just handed out, and keeps some reservations to be cancelled.
func (w *world) count(n *simNode, period int64) {
	w.perPeriod[period]++
	n.perPeriod[period]++
	if w.faulty && w.rng.IntN(100) == 0 {
		r := w.last
		w.last = authz.Reservation{}
		n.open, n.at = append(n.open, &r), append(n.at, period)
	}
}
