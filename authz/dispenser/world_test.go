package dispenser

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/holding"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// world is one simulated installation.
type world struct {
	rng     *rand.Rand
	seed    uint64
	limits  []authz.Limit // of the plan that all holders have
	holders []authz.Holder
	of      [][]*simBucket // by holder, then by limit
	buckets []*simBucket   // each once
	now     time.Time
	roll    quota.Roll
	peers   map[quota.NodeID]simPeer
	nodes   []*simNode
	faulty  bool // lines and clients have faults, and plans change
	sabotage
	lowered bool   // the plan was changed, to fewer units
	fault   string // the first property that did not hold

	mu      sync.Mutex // held by what the ledger does. Only nodes that are closed call it from goroutines of their own.
	records map[quota.HolderID]*quota.Record
	old     []quota.LeaseRequest // to be delivered again, late

	takeovers *takeovers // nil if no server of the ledger dies

	asked, admitted, refused, timedOut, calls, crashes int
	lost                                               int64             // units that nodes held when they crashed
	last                                               authz.Reservation // the latest
	strandings                                         *strandings       // of crashes; nil if they are not looked at
	unsure                                             map[unsure]int64  // units of refunds that crashed nodes did not get through
}

// unsure names a period of a bucket.
type unsure struct {
	bucket quota.Bucket
	start  int64
}

// sabotage is ways to break dispensers and the membership, each of which the simulation has to notice.
type sabotage struct {
	forgetful bool // nodes believe that sessions do not end
	alone     bool // nodes believe that no other node holds units
	lavish    bool // nodes believe that all units they hold may be spent after the limit was lowered
	greedy    bool // nodes believe that there is one less of them
	hasty     bool // nodes do not wait when they join
	negligent bool // nodes forget holders that were put away, and give back nothing
	partial   bool // a request that is refused keeps what it took of other limits
	hoarding  bool // nodes never return what callers do not need
	trusting  bool // the ledger grants although it may have lost commits
	silent    bool // nodes do not tell what they hold after commits were lost
}

// simBucket is one count, and what clients were allowed of it.
type simBucket struct {
	quota.Bucket
	limit     *authz.Limit    // of the world's
	dryAt     time.Time       // when the ledger last had nothing to grant
	perPeriod map[int64]int64 // units admitted, by the start of the period
	untold    map[int64]int64 // of those, by nodes that crashed when the ledger may have lost what it knew of them
	forgiven  map[int64]int64 // of a rate: units admitted by nodes that are gone
}

// newWorld has the holders with that number of accounts, each with two keys.
func newWorld(seed uint64, nodes, accounts int, limits []authz.Limit, faulty bool) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), seed: seed, limits: slices.Clone(limits), faulty: faulty,
		now:   time.Date(2026, 3, 29, 0, 59, 0, 0, time.UTC),
		peers: make(map[quota.NodeID]simPeer), records: make(map[quota.HolderID]*quota.Record), unsure: make(map[unsure]int64),
	}
	known := make(map[quota.Bucket]*simBucket)
	for i := range 2 * accounts {
		h := authz.Holder{Key: fmt.Sprintf("k%d", i), Account: fmt.Sprintf("a%d", i/2)}
		var of []*simBucket
		for j := range w.limits {
			l := &w.limits[j]
			id := quota.BucketOf(l, h)
			b := known[id]
			if b == nil {
				b = &simBucket{Bucket: id, limit: l, perPeriod: make(map[int64]int64), forgiven: make(map[int64]int64), untold: make(map[int64]int64)}
				known[id], w.buckets = b, append(w.buckets, b)
			}
			of = append(of, b)
		}
		w.holders, w.of = append(w.holders, h), append(w.of, of)
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

// single reports whether the world has one bucket, for which more can be told.
func (w *world) single() bool { return len(w.buckets) == 1 }

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
	case p < 9882 && !w.single():
		w.rest(time.Duration(w.rng.IntN(20)) * time.Minute)
	case !w.faulty:
	case p < 9900:
		n.cut, n.mended = !n.cut, w.now
	case p < 9910:
		n.boot()
	default:
		w.trouble(p, n)
	}
	if w.takeovers != nil {
		w.copyLedger()
	}
	w.sweepDue()
	if w.single() {
		if err := w.record(w.buckets[0].HolderID()).Check(); err != nil {
			w.failf("%v", err)
		}
	}
}

// trouble is the steps that only happen in a world with faults, and not to lines and nodes.
func (w *world) trouble(p int, n *simNode) {
	l := &w.limits[w.rng.IntN(len(w.limits))]
	switch {
	case p < 9960 && len(n.open) > 0:
		last := len(n.open) - 1
		n.open[last].cancel(n)
		n.open = n.open[:last]
	case p < 9970 && len(w.old) > 0: // a copy that arrives very late
		r := w.old[w.rng.IntN(len(w.old))]
		_ = w.record(r.Holder).Lease(&r, w.at())
	case p < 9971 && !w.lowered && !quota.IsRate(l): // for all nodes at once
		w.lowered, l.Units = true, w.rng.Int64N(l.Units+1)
	case p < 9972 && w.lowered && !quota.IsRate(l):
		l.Units += w.rng.Int64N(l.Units + 100)
	case p < 9975:
		w.now = w.now.Add(time.Duration(w.rng.IntN(150)) * time.Second)
	case w.takeovers == nil:
	case p < 9985:
		w.takeOver()
	case w.roll.Withholds(w.now): // most of the time nothing happens then
		w.now = w.now.Add(time.Duration(w.rng.IntN(20)) * time.Second)
	}
}

// sweepDue has the nodes sweep whose turn it is.
func (w *world) sweepDue() {
	for _, n := range w.nodes {
		if !w.now.Before(n.sweepAt) {
			n.sweep()
			n.sweepAt = w.now.Add(SweepEvery)
		}
	}
}

// rest is a time in which no client comes.
func (w *world) rest(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(SweepEvery)
		w.sweepDue()
		w.deliverAll()
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
	w.noticed()
	return quota.Instant{Time: w.now, Withhold: w.roll.Withholds(w.now) && !w.trusting, Alive: func(n quota.NodeID) bool { return w.roll.Alive(n, w.now) }}
}

// record is what the ledger has of a holder.
func (w *world) record(h quota.HolderID) *quota.Record {
	r := w.records[h]
	if r == nil {
		r = &quota.Record{}
		w.records[h] = r
	}
	return r
}

// book is the ledger's book of a bucket.
func (w *world) book(b quota.Bucket) *quota.Book { return w.record(b.HolderID()).Book(b.CountKey()) }

// pages are those of a bucket that the ledger has.
func (w *world) pages(b *simBucket) (out []*quota.Page) {
	book := w.book(b.Bucket)
	for _, p := range []*quota.Page{book.Current, book.Previous, book.Prepaid} {
		if p != nil {
			out = append(out, p)
		}
	}
	return out
}

// pageOf is the page of a period, nil if the ledger has dropped it.
func (w *world) pageOf(b *simBucket, p quota.Period) *quota.Page {
	for _, page := range w.pages(b) {
		if page.Period.Same(p) {
			return page
		}
	}
	return nil
}

// observe notes where no units are left.
func (w *world) observe() {
	if !w.single() {
		return
	}
	b := w.buckets[0]
	if quota.IsRate(b.limit) {
		return
	}
	if w.book(b.Bucket).Balance(b.Bucket, *b.limit, w.at()).Free == 0 {
		b.dryAt = w.now
	}
	for _, n := range w.nodes {
		if n.available(b) == 0 {
			n.emptyAt = w.now
		}
	}
}

// refuse checks what has to be true when a client is told that nothing is left: see holding.Recheck.
func (w *world) refuse(n *simNode) {
	w.refused++
	if !w.single() {
		return
	}
	w.observe()
	b := w.buckets[0]
	long := func(since time.Time) bool { return w.now.Sub(since) >= holding.Recheck }
	if long(b.dryAt) {
		w.failf("node %s refused at %v, and the ledger had units since %v", n.d.node, w.now, b.dryAt)
	}
	if n.cut || !long(n.mended) {
		return // it reaches no other node, or did not when it last recalled
	}
	for _, m := range w.nodes {
		if m != n && !m.cut && long(m.mended) && long(m.emptyAt) {
			w.failf("node %s refused at %v, and node %s held %d units since %v", n.d.node, w.now, m.d.node, m.available(b), m.emptyAt)
		}
	}
}

// admit counts what was just reserved of a bucket, and returns the start of the period.
func (w *world) admit(n *simNode, b *simBucket, units int64) int64 {
	held := n.source(b).Period
	period := held.Start.Unix()
	n.count(b, period, units)
	// A crash refunds units that may have been used: such a limit is meant to.
	if got := b.perPeriod[period] - b.untold[period]; got > b.limit.Units && !b.limit.RefundOnCrash {
		w.failf("%d of %d %s admitted in the period from %d, and %d by nodes of which the ledger lost what it knew",
			got, b.limit.Units, b.limit.Name, period, b.untold[period])
	}
	if w.takeovers != nil { // the ledger may not know what the node holds
		return period
	}
	// No node serves from a lease that the ledger counts as over, whatever the clocks say.
	if p := w.pageOf(b, held); p != nil {
		if h := p.Held[n.d.node]; h.Units < 1 || !w.roll.Alive(n.d.node, w.now) {
			w.failf("node %s served from a lease that is over: %+v at %v", n.d.node, h, w.now)
		}
	}
	return period
}

// admitRate counts what was just taken of a rate: what is taken in one period is never more than the limit and what nodes took in
// it that have gone since.
func (w *world) admitRate(n *simNode, b *simBucket, f authz.QuotaFact, units int64) int64 {
	period := f.ResetsAt.Add(-f.Window).Unix()
	n.count(b, period, units)
	if got := b.perPeriod[period]; got > b.limit.Units+b.forgiven[period] {
		w.failf("%d of %d admitted in the period from %d, in which nodes that are gone used %d",
			got, b.limit.Units, period, b.forgiven[period])
	}
	return period
}
