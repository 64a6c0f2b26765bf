package dispenser

import (
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// takeovers is servers of the ledger that die, and others that take over: with all commits, or without the last.
type takeovers struct {
	copies      []ledgerCopy // the oldest first
	incarnation int
	safe        bool // no commit is lost
	lost, kept  int  // how many commits were in doubt
	dead        []deadNode
	over        uint64 // the last doubt that is over
}

// deadNode is a node that crashed, and what it had handed out.
type deadNode struct {
	at       time.Time
	admitted map[*simBucket]map[int64]int64
}

// ledgerCopy is a ledger as it was.
type ledgerCopy struct {
	at      time.Time
	records map[quota.HolderID]*quota.Record
	roll    quota.Roll
}

const (
	// copyEvery is how often a copy is made, and behind how many of them the server may be that takes over.
	copyEvery, behind = 500 * time.Millisecond, 60
)

// newLosingWorld has servers that die.
func newLosingWorld(seed uint64, limits []authz.Limit, safe bool) *world {
	w := newWorld(seed, 2+int(seed%5), 1+14*int(seed%5/4), limits, true)
	w.takeovers = &takeovers{safe: safe}
	return w
}

// copyLedger keeps a copy of the ledger, as a standby does.
func (w *world) copyLedger() {
	t := w.takeovers
	if n := len(t.copies); n > 0 && w.now.Sub(t.copies[n-1].at) < copyEvery {
		return
	}
	c := ledgerCopy{at: w.now, records: make(map[quota.HolderID]*quota.Record), roll: w.roll}
	c.roll.Members = maps.Clone(w.roll.Members)
	for h, r := range w.records {
		c.records[h] = r.Clone()
	}
	if t.copies = append(t.copies, c); len(t.copies) > behind {
		t.copies = t.copies[1:]
	}
}

// takeOver has another server answer, which may lack the last commits.
func (w *world) takeOver() {
	t := w.takeovers
	t.copies = slices.DeleteFunc(t.copies, func(c ledgerCopy) bool { return w.now.Sub(c.at) > keepTold/2 })
	if len(t.copies) == 0 {
		return
	}
	t.incarnation++
	if t.safe {
		t.kept++
		return
	}
	t.lost++
	c := t.copies[w.rng.IntN(len(t.copies))]
	t.copies = nil
	for _, n := range t.dead { // nobody can tell what it spent of leases that were lost
		if n.at.After(c.at) {
			n.untold()
		}
	}
	t.dead = nil
	w.records, w.roll = c.records, c.roll
}

// untold counts what nobody tells the ledger.
func (n deadNode) untold() {
	for b, periods := range n.admitted {
		for period, units := range periods {
			b.untold[period] += units
		}
	}
}

// noticed has the roll know which server answers. When the ledger grants again, a node that it has not reached for a whole term
// may still have to tell what it spent.
func (w *world) noticed() {
	t := w.takeovers
	if t == nil {
		return
	}
	w.roll.Notice("server "+strconv.Itoa(t.incarnation), t.safe, w.now)
	if t.over < w.roll.Doubt && !w.roll.Withholds(w.now) {
		t.over = w.roll.Doubt
		for _, n := range w.nodes {
			if !t.safe && !w.roll.Alive(n.d.node, w.now) && n.d.restated.Load() < t.over {
				deadNode{w.now, n.admitted}.untold()
			}
		}
	}
}

// crashed notes a node that crashed. If the ledger may not know what it held, nobody can tell what it spent.
func (t *takeovers) crashed(n *simNode) {
	n.w.noticed()
	dead := deadNode{n.w.now, n.admitted}
	if n.d.restated.Load() < n.w.roll.Doubt {
		dead.untold()
	} else {
		t.dead = append(t.dead, dead)
	}
}

// TestSimulation_LostCommits has servers of the ledger die at any moment, and others take over that lack what was committed in the
// last seconds: leases, what was spent of them, what came back, nodes that joined. No limit is overrun, but for what nodes spent of
// leases that were lost and that crashed themselves before they told it.
func TestSimulation_LostCommits(t *testing.T) {
	limits := [][]authz.Limit{
		{{Name: "small", Units: 37, Window: authz.WindowHour, Per: authz.PerAccount}},
		{{Name: "hourly", Units: 1_000, Window: authz.WindowHour, Per: authz.PerAccount}},
		{{Name: "prepaid", Units: 3_000, Window: authz.WindowNone, Per: authz.PerAccount}},
		street,
	}
	for _, safe := range []bool{false, true} {
		total := simulate(t, 2**simReservations, func(seed uint64) *world {
			return newLosingWorld(seed, limits[seed%uint64(len(limits))], safe)
		})
		if t.Failed() {
			return
		}
		t.Logf("%v; %d servers took over with commits lost, %d without", total, total.takeovers.lost, total.takeovers.kept)
		if total.admitted == 0 || total.refused == 0 || total.takeovers.lost+total.takeovers.kept == 0 {
			t.Error("the limits were not used up, or nothing was lost")
		}
	}
}
