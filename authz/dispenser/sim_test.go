package dispenser

import (
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// The simulation runs the production dispenser and the production arithmetic of the ledger in one goroutine, on virtual
// time, with every choice drawn from a seed: many nodes over one ledger, clocks that differ, calls that are late, lost,
// answered in vain or repeated, partitions and crashes between any two steps. A seed that fails is printed, and runs the
// same again with -sim.seed: exactly so with one holder, and for many but for the order in which a sweep visits them.
var (
	simSeed         = flag.Uint64("sim.seed", 0, "run only this seed")
	simReservations = flag.Int("sim.n", 200_000, "reservations to simulate")
)

// TestSimulation_NeverOverGrants breaks everything, under limits of many kinds, and looks for one unit too many.
func TestSimulation_NeverOverGrants(t *testing.T) {
	limits := []authz.Limit{
		{Name: "small", Units: 37, Window: authz.WindowHour, Per: authz.PerAccount},
		{Name: "hourly", Units: 5_000, Window: authz.WindowHour, Per: authz.PerAccount},
		{Name: "daily", Units: 50_000, Window: authz.WindowDay, Per: authz.PerAccount, Zone: berlin(t)},
		{Name: "prepaid", Units: 5_000, Window: authz.WindowNone, Per: authz.PerAccount},
		{Name: "refunded", Units: 5_000, Window: authz.WindowNone, Per: authz.PerAccount, RefundOnCrash: true},
	}
	total := simulate(t, *simReservations, oneOf(limits))
	t.Log(total)
}

// TestSimulation_RatesStayWithinTheirShares breaks everything, under limits per second and minute. Nodes crash and join, and learn
// of each other late.
func TestSimulation_RatesStayWithinTheirShares(t *testing.T) {
	total := simulate(t, *simReservations, oneOf([]authz.Limit{
		{Name: "few", Units: 5, Window: authz.WindowMinute, Per: authz.PerAccount},
		{Name: "minute", Units: 3_000, Window: authz.WindowMinute, Per: authz.PerAccount},
		{Name: "second", Units: 100, Window: authz.WindowSecond, Per: authz.PerAccount},
	}))
	t.Log(total)
	if total.admitted == 0 || total.refused == 0 {
		t.Error("the limits were not used up")
	}
}

// oneOf is worlds with one account under one of the limits.
func oneOf(limits []authz.Limit) func(seed uint64) *world {
	return func(seed uint64) *world {
		i := seed % uint64(len(limits))
		return newWorld(seed, 1+int(seed%12), 1, limits[i:i+1], true)
	}
}

// simulate runs the worlds of one seed after the other, until that many reservations were asked for.
func simulate(t *testing.T, reservations int, build func(seed uint64) *world) *world {
	const perSeed = 20_000
	var (
		total world
		mu    sync.Mutex
		next  atomic.Uint64
		wg    sync.WaitGroup
	)
	next.Store(*simSeed)
	more := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return total.asked < reservations && !t.Failed()
	}
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for more() {
				seed := next.Add(1)
				if *simSeed != 0 {
					seed = *simSeed
				}
				w := build(seed)
				w.run(perSeed)
				if w.settle(); w.fault != "" {
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
	return &total
}

func (w *world) String() string {
	return fmt.Sprintf("%d reservations asked for: %d admitted, %d refused, %d without an answer; %d ledger calls; %d nodes crashed with %d units",
		w.asked, w.admitted, w.refused, w.timedOut, w.calls, w.crashes, w.lost)
}

func (w *world) add(o *world) {
	w.asked += o.asked
	w.admitted += o.admitted
	w.refused += o.refused
	w.timedOut += o.timedOut
	w.calls += o.calls
	w.crashes += o.crashes - len(o.nodes) // the first of each was no crash
	w.lost += o.lost
	if o.takeovers != nil {
		if w.takeovers == nil {
			w.takeovers = &takeovers{}
		}
		w.takeovers.lost += o.takeovers.lost
		w.takeovers.kept += o.takeovers.kept
	}
}

// street is the limits of callers who come now and then: all of them are charged at once.
var street = []authz.Limit{
	{Name: "rate", Units: 20, Window: authz.WindowSecond, Per: authz.PerKey},
	{Name: "hourly", Units: 150, Window: authz.WindowHour, Per: authz.PerKey},
	{Name: "monthly", Units: 3_000, Window: authz.WindowMonth, Per: authz.PerAccount},
	{Name: "prepaid", Units: 2_000, Window: authz.WindowNone, Per: authz.PerAccount},
}

// TestSimulation_HoldersOfManyLimits charges many holders for an hour, a month, prepaid credits and a rate at once. Their leases are
// put away when they do not come, woken, recalled, and given back together. In the end nothing is charged that no client got.
func TestSimulation_HoldersOfManyLimits(t *testing.T) {
	total := simulate(t, *simReservations/4, func(seed uint64) *world { return newWorld(seed, 1+int(seed%4), 15, street, seed%3 > 0) })
	t.Log(total)
	if total.admitted == 0 || total.refused == 0 {
		t.Error("the limits were not used up")
	}
}

// TestSimulation_NoticesSabotage breaks dispensers and the membership on purpose.
func TestSimulation_NoticesSabotage(t *testing.T) {
	refunded := authz.Limit{Name: "refunded", Units: 2_000, Window: authz.WindowNone, Per: authz.PerAccount, RefundOnCrash: true}
	daily := authz.Limit{Name: "daily", Units: 50_000, Window: authz.WindowDay, Per: authz.PerAccount}
	second := authz.Limit{Name: "second", Units: 100, Window: authz.WindowSecond, Per: authz.PerAccount}
	one := func(l authz.Limit) func(uint64) *world {
		return func(seed uint64) *world { return newWorld(seed, 5, 1, []authz.Limit{l}, true) }
	}
	losing := func(seed uint64) *world {
		return newLosingWorld(2*seed+1, []authz.Limit{{Name: "credits", Units: 2_000, Window: authz.WindowNone, Per: authz.PerAccount}}, false)
	}
	many := func(seed uint64) *world { return newWorld(seed, 3, 15, street, false) }
	for name, c := range map[string]struct {
		build func(seed uint64) *world
		what  sabotage
	}{
		"forgetful": {one(refunded), sabotage{forgetful: true}},
		"alone":     {one(refunded), sabotage{alone: true}},
		"lavish":    {one(daily), sabotage{lavish: true}},
		"greedy":    {one(second), sabotage{greedy: true}},
		"hasty":     {one(second), sabotage{hasty: true}},
		"negligent": {many, sabotage{negligent: true}},
		"partial":   {many, sabotage{partial: true}},
		"hoarding":  {func(seed uint64) *world { return newPacedWorld(seed, 1) }, sabotage{hoarding: true}},
		"trusting":  {losing, sabotage{trusting: true}},
		"silent":    {losing, sabotage{silent: true}},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 50; seed++ {
				w := c.build(seed)
				w.sabotage = c.what
				if w.strandings != nil {
					w.pace(2 * time.Minute)
				} else {
					w.run(20_000)
				}
				if w.settle(); w.fault != "" {
					t.Logf("noticed: %s", w.fault)
					return
				}
			}
			t.Error("50 seeds found nothing wrong")
		})
	}
}

// TestSimulation_Utilisation uses limits up without faults: all of each can be used, with few calls to the ledger.
func TestSimulation_Utilisation(t *testing.T) {
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

// runDry uses a limit up. It returns which part could be used, and how many calls to the ledger each unit cost. Calls after the
// last unit are not counted.
func runDry(seed uint64, units int64) (used, callsEach float64) {
	w := newWorld(seed, 10, 1, []authz.Limit{{Name: "credits", Units: units, Window: authz.WindowNone, Per: authz.PerAccount}}, false)
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

func berlin(t testing.TB) *time.Location {
	loc, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return loc
}
