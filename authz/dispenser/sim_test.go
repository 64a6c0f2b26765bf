package dispenser

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/holding"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// The simulation runs the production dispenser and the production arithmetic of the ledger in one goroutine, on virtual
// time, with every choice drawn from a seed: many nodes over one ledger, clocks that differ, calls that are late, lost,
// answered in vain or repeated, partitions and crashes between any two steps. A seed that fails is printed, and runs the
// same again with -sim.seed.
var (
	simSeed         = flag.Uint64("sim.seed", 0, "run only this seed")
	simReservations = flag.Int("sim.n", 200_000, "reservations to simulate")
)

// world is one simulated installation.
type world struct {
	rng     *rand.Rand
	seed    uint64
	limit   authz.Limit
	bucket  quota.Bucket
	now     time.Time
	book    quota.Book
	recalls quota.LocalNodes
	nodes   []*simNode
	faulty  bool
	// Three ways to break dispensers, which the simulation has to notice: they believe that a lease has no term, that
	// no other node holds any units, or that everything in hand may be spent after the limit was lowered.
	forgetful, alone, lavish bool
	lowered                  bool      // the plan was changed, to fewer units
	fault                    string    // the first property that did not hold
	dryAt                    time.Time // when the ledger last had nothing to grant

	asked, admitted, refused, timedOut, calls, crashes int
	lost                                               int64                // units that nodes held when they crashed
	last                                               authz.Reservation    // the latest
	perPeriod                                          map[int64]int64      // admitted, by the start of the period
	old                                                []quota.LeaseRequest // to be delivered again, late
}

// simNode is one node: a dispenser, what it has under way, and what is wrong with its clock and its line.
type simNode struct {
	w    *world
	name int
	d    *Dispenser
	skew time.Duration
	cut  bool
	// When the line was mended, and when the node last had nothing in hand.
	mended, emptyAt time.Time

	todo []func()             // calls to the ledger that are under way
	open []*authz.Reservation // reservations that may still be cancelled
	at   []int64              // the periods they were taken in
}

var holderOfSim = authz.Holder{Key: "k", Account: "a"}

// expired is the context of everybody who asks: nobody waits in a simulation, but asks again.
var expired = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func newWorld(seed uint64, nodes int, l authz.Limit, faulty bool) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), seed: seed, limit: l, bucket: quota.BucketOf(&l, holderOfSim), faulty: faulty,
		now: time.Date(2026, 3, 29, 0, 59, 0, 0, time.UTC), perPeriod: make(map[int64]int64),
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

// boot starts the node as a new one: what the one before held is forgotten.
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

// page is the one on which the ledger counts.
func (w *world) page() *quota.Page {
	if w.limit.Window == authz.WindowNone {
		return w.book.Prepaid
	}
	return w.book.Current
}

// pageOf is the page of a period, nil if the ledger has dropped it.
func (w *world) pageOf(p quota.Period) *quota.Page {
	for _, page := range []*quota.Page{w.book.Current, w.book.Previous, w.book.Prepaid} {
		if page != nil && page.Period.Same(p) {
			return page
		}
	}
	return nil
}

// inHand is how many units the node could hand out.
func (n *simNode) inHand() int64 {
	t, ok := n.d.leases.Load(keyOfBucket(n.w.bucket))
	if !ok {
		return 0
	}
	if s := t.source.Load(); s.Good(n.d.now()) {
		return s.Available(n.w.limit.Units)
	}
	return 0
}

// observe notes who has nothing.
func (w *world) observe() {
	if w.book.Balance(w.bucket, w.limit, w.now).Free == 0 {
		w.dryAt = w.now
	}
	for _, n := range w.nodes {
		if n.inHand() == 0 {
			n.emptyAt = w.now
		}
	}
}

// refuse is what holds when a client is told that nothing is left: see holding.Recheck.
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
			w.failf("node %s refused at %v, and node %s held %d units since %v", n.d.node, w.now, m.d.node, m.inHand(), m.emptyAt)
		}
	}
}

// link is a node's line to the ledger, with all that can happen on it.
type link struct {
	n *simNode
	*world
}

var errLine = errors.New("the line is down")

// through decides the fate of one call: whether it arrives, how often, and whether its answer does.
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

// Settle is not repeated: that an id counts once is the store's business.
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

// admit counts what was just reserved.
func (w *world) admit(n *simNode) {
	w.admitted++
	t, _ := n.d.leases.Load(keyOfBucket(w.bucket))
	held := t.source.Load().Period
	period := held.Start.Unix()
	w.perPeriod[period]++
	// What a crash refunds may have been used: that is what such a limit is asked for.
	if got := w.perPeriod[period]; got > w.limit.Units && !w.limit.RefundOnCrash {
		w.failf("%d of %d admitted in the period from %d", got, w.limit.Units, period)
	}
	// Nobody serves from a lease that the ledger counts as over, whatever the clocks say.
	if p := w.pageOf(held); p != nil {
		if h := p.Held[n.d.node]; h.Units < 1 || !h.Until.After(w.now) {
			w.failf("node %s served from a lease that is over: %+v at %v", n.d.node, h, w.now)
		}
	}
	if w.faulty && w.rng.IntN(100) == 0 {
		r := w.last
		w.last = authz.Reservation{}
		n.open, n.at = append(n.open, &r), append(n.at, period)
	}
}

// deliverAll lets every call that is under way go through, but for those that are late.
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

// step is one thing that happens.
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
		if t, ok := n.d.leases.Load(keyOfBucket(w.bucket)); ok {
			_ = t.sweep(expired)
		}
	case !w.faulty:
	case p < 9900:
		n.cut, n.mended = !n.cut, w.now
	case p < 9910:
		n.boot()
	case p < 9960 && len(n.open) > 0:
		last := len(n.open) - 1
		n.open[last].Cancel()
		w.perPeriod[n.at[last]]--
		w.admitted--
		n.open, n.at = n.open[:last], n.at[:last]
	case p < 9970 && len(w.old) > 0: // a copy that was on its way for long
		r := w.old[w.rng.IntN(len(w.old))]
		_, _ = w.book.Lease(r, w.now)
	case p < 9971 && !w.lowered: // every node follows from here on
		w.lowered, w.limit.Units = true, w.rng.Int64N(w.limit.Units+1)
	case p < 9972 && w.lowered:
		w.limit.Units += w.rng.Int64N(w.limit.Units + 100)
	case p < 9975:
		w.now = w.now.Add(time.Duration(w.rng.IntN(150)) * time.Second)
	}
	if err := w.book.Check(); err != nil {
		w.failf("%v", err)
	}
}

// TestSimulation breaks everything, under limits of many kinds, and looks for a unit too many.
func TestSimulation(t *testing.T) {
	limits := []authz.Limit{
		{Name: "small", Units: 37, Window: authz.WindowMinute, Per: authz.PerAccount},
		{Name: "hourly", Units: 5_000, Window: authz.WindowHour, Per: authz.PerAccount},
		{Name: "daily", Units: 50_000, Window: authz.WindowDay, Per: authz.PerAccount, Zone: berlin(t)},
		{Name: "prepaid", Units: 5_000, Window: authz.WindowNone, Per: authz.PerAccount},
		{Name: "refunded", Units: 5_000, Window: authz.WindowNone, Per: authz.PerAccount, RefundOnCrash: true},
	}
	const perSeed = 20_000
	var (
		mu    sync.Mutex
		total world
		next  atomic.Uint64
		wg    sync.WaitGroup
	)
	next.Store(*simSeed)
	more := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return total.asked < *simReservations && !t.Failed()
	}
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for more() {
				seed := next.Add(1)
				if *simSeed != 0 {
					seed = *simSeed
				}
				w := newWorld(seed, 1+int(seed%12), limits[seed%uint64(len(limits))], true)
				if w.run(perSeed); w.fault != "" {
					t.Error(w.fault)
				}
				mu.Lock()
				total.add(w)
				mu.Unlock()
				if *simSeed != 0 {
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d reservations asked for: %d admitted, %d refused, %d without an answer; %d ledger calls; %d nodes crashed with %d units; over-grants: 0",
		total.asked, total.admitted, total.refused, total.timedOut, total.calls, total.crashes, total.lost)
}

func (w *world) add(o *world) {
	w.asked += o.asked
	w.admitted += o.admitted
	w.refused += o.refused
	w.timedOut += o.timedOut
	w.calls += o.calls
	w.crashes += o.crashes - len(o.nodes) // the first of each was no crash
	w.lost += o.lost
}

// TestSimulationNoticesABrokenDispenser has dispensers that go on serving when their lease has run out, that never ask
// others for what they hold, and that spend what a lowered limit does not grant.
func TestSimulationNoticesABrokenDispenser(t *testing.T) {
	refunded := authz.Limit{Name: "refunded", Units: 2_000, Window: authz.WindowNone, Per: authz.PerAccount, RefundOnCrash: true}
	daily := authz.Limit{Name: "daily", Units: 50_000, Window: authz.WindowDay, Per: authz.PerAccount}
	for name, c := range map[string]struct {
		limit   authz.Limit
		breakIt func(*world)
	}{
		"forgetful": {refunded, func(w *world) { w.forgetful = true }},
		"alone":     {refunded, func(w *world) { w.alone = true }},
		"lavish":    {daily, func(w *world) { w.lavish = true }},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 50; seed++ {
				w := newWorld(seed, 5, c.limit, true)
				c.breakIt(w)
				if w.run(20_000); w.fault != "" {
					t.Logf("noticed: %s", w.fault)
					return
				}
			}
			t.Error("50 seeds found nothing wrong")
		})
	}
}

func berlin(t testing.TB) *time.Location {
	loc, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// TestUtilisation runs limits dry without faults: what is used of them, and how often the ledger is asked.
func TestUtilisation(t *testing.T) {
	for _, units := range []int64{1_000, 10_000, 100_000, 1_000_000} {
		var used, perReservation float64 // the worst
		used = 1
		for seed := range uint64(min(20, max(1, 1_000_000/units))) {
			u, per := runDry(seed, units)
			used, perReservation = min(used, u), max(perReservation, per)
		}
		t.Logf("limit %7d, 10 nodes: %.2f %% used, %.4f ledger calls a reservation", units, 100*used, perReservation)
		if used < 0.999 {
			t.Errorf("limit %d: %.2f %% used, want 99.9 %%", units, 100*used)
		}
		if units >= 10_000 && perReservation > 0.02 {
			t.Errorf("limit %d: %.4f ledger calls a reservation, want 0.02", units, perReservation)
		}
	}
}

// runDry uses a limit up: which part of it could be used, and how many calls to the ledger each unit cost. Asking whether
// there is more, when the last unit is gone, is not counted.
func runDry(seed uint64, units int64) (used, callsEach float64) {
	w := newWorld(seed, 10, authz.Limit{Name: "credits", Units: units, Window: authz.WindowNone, Per: authz.PerAccount}, false)
	calls := 0
	for idle := 0; idle < 200; idle++ {
		before := w.admitted
		w.step()
		w.now = w.now.Add(20 * time.Millisecond)
		if w.admitted > before {
			idle, calls = 0, w.calls
		}
	}
	return float64(w.admitted) / float64(units), float64(calls) / float64(w.admitted)
}
