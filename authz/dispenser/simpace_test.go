package dispenser

import (
	"slices"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// strandings is what crashes cost.
type strandings struct{ all []stranding }

// stranding is what a node held of a bucket when it crashed.
type stranding struct {
	units, allowed, recent int64
}

// forgives is for how long before a crash the traffic of a caller may be stranded.
const forgives = 10 * time.Second

// add checks what a crash strands: at most what the caller took on the node lately, or a small part of the limit, or one unit.
func (s *strandings) add(n *simNode, b *simBucket, p *quota.Page, held int64) {
	recent := int64(0)
	for _, t := range n.recent[b] {
		if n.w.now.Sub(t.at) <= forgives {
			recent += t.units
		}
	}
	allowed := max(1, (b.limit.Units+p.Credited)/smallPart, recent)
	s.all = append(s.all, stranding{held, allowed, recent})
	if held > allowed+1 { // one unit is that of a request that came meanwhile, and that another limit has to wait for
		n.w.failf("a crash at %v strands %d of %+v, of which the caller took %d in the %v before", n.w.now, held, b.Bucket, recent, forgives)
	}
}

// newPacedWorld has callers of different pace, under limits of which one percent is little.
func newPacedWorld(seed uint64, nodes int) *world {
	w := newWorld(seed, nodes, 3, []authz.Limit{
		{Name: "rate", Units: 5_000, Window: authz.WindowMinute, Per: authz.PerKey},
		{Name: "hourly", Units: 3_000, Window: authz.WindowHour, Per: authz.PerKey},
		{Name: "monthly", Units: 20_000, Window: authz.WindowMonth, Per: authz.PerAccount},
		{Name: "prepaid", Units: 9_000, Window: authz.WindowNone, Per: authz.PerAccount},
	}, false)
	w.strandings = &strandings{}
	for _, n := range w.nodes {
		n.skew = 0
	}
	return w
}

// pace has the callers come for that long, each in its own way, and nodes crash at any moment.
func (w *world) pace(d time.Duration) {
	const tick = 5 * time.Millisecond
	comes := []func(ticks int) int{
		func(int) int { return 1 - min(1, w.rng.IntN(4)) },               // 50 a second
		func(i int) int { return 8 * max(0, 1-i%2800/100) },              // 800 in half a second, every fourteen
		func(i int) int { return 1 - min(1, i%700) },                     // one every 3.5 s
		func(int) int { return (1 - min(1, w.rng.IntN(1000))) * 30 },     // 30 at once, every 5 s or so
		func(i int) int { return (1 - min(1, w.rng.IntN(60))) },          // 3 a second
		func(i int) int { return max(0, 1-i%4000/1500) * w.rng.IntN(2) }, // 100 a second for 7 s, then nothing for 12 s
	}
	all := authz.Charge{"rate": 1, "hourly": 1, "monthly": 1, "prepaid": 1}
	for i := range int(d / tick) {
		for who, f := range comes {
			for range f(i + 137*who) {
				w.nodes[w.rng.IntN(len(w.nodes))].reserve(who, all)
			}
			if w.rng.IntN(20_000) == 0 {
				w.nodes[w.rng.IntN(len(w.nodes))].boot()
			}
		}
		w.deliverAll() // a sweep passes over a holder whose call is under way: such calls are short
		w.now = w.now.Add(tick)
		w.sweepDue()
		w.deliverAll()
		if w.fault != "" {
			return
		}
	}
}

// TestSimulation_CrashesStrandLittle crashes nodes under callers of different pace.
func TestSimulation_CrashesStrandLittle(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		var all []stranding
		asked := 0
		for seed := uint64(1); asked < *simReservations/4 && !t.Failed(); seed++ {
			w := newPacedWorld(seed, nodes)
			w.pace(3 * time.Minute)
			if w.settle(); w.fault != "" {
				t.Error(w.fault)
			}
			all = append(all, w.strandings.all...)
			asked += w.asked
		}
		switch {
		case t.Failed():
			return
		case len(all) == 0:
			t.Fatal("no crash stranded anything")
		}
		slices.SortFunc(all, func(a, b stranding) int { return int(a.units*b.allowed - b.units*a.allowed) })
		at := func(p int) float64 { s := all[(len(all)-1)*p/100]; return float64(s.units) / float64(s.allowed) }
		t.Logf("%d nodes: %d buckets with stranded units; of what is allowed, p50 %.2f, p90 %.2f, p99 %.2f, most %.2f",
			nodes, len(all), at(50), at(90), at(99), at(100))
	}
}
