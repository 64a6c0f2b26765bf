package nodes

import (
	"context"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// longRun is a run in which there is time for a node that is gone for longer than its session runs.
const longRun = gone + 10*time.Second

// gone is more than such a node needs: for a while the others use its share of the rates.
const gone = quota.SessionTerm + 20*time.Second

// faults break processes of a fleet, and have all of them run in the end. What they note may be read after wg has ended.
type faults struct {
	f  *fleet
	wg sync.WaitGroup

	mu      sync.Mutex
	count   map[string]int
	lost    []time.Time // when a node ended without giving back what it held
	outages []span      // of PostgreSQL
}

type span struct{ from, to time.Time }

// start breaks nodes and PostgreSQL until ctx ends. Half of the nodes are never broken at the same time.
func (x *faults) start(ctx context.Context, seed uint64, length time.Duration) {
	for i := range 2 {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		x.wg.Go(func() {
			for first := true; wait(ctx, rng, time.Second, 3*time.Second); first = false {
				n := x.f.nodes[2*i+rng.IntN(2)]
				switch how := rng.IntN(3); {
				case first && length >= longRun && i == 0:
					x.cutOff(ctx, n)
				case first && length >= longRun:
					x.pause(ctx, n)
				case how == 0:
					x.restart(n)
				default:
					x.kill(ctx, rng, n)
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, 2))
	x.wg.Go(func() {
		for wait(ctx, rng, 3*time.Second, 9*time.Second) {
			x.killPostgres(ctx, rng)
		}
	})
}

// wait waits for a random time, and returns false if ctx has ended.
func wait(ctx context.Context, rng *rand.Rand, least, most time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(least + time.Duration(rng.Int64N(int64(most-least)))):
		return true
	}
}

func (x *faults) note(what string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.count[what]++
}

// loses notes that a node ends, or that its session does, with all that it holds.
func (x *faults) loses() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lost = append(x.lost, time.Now())
}

func (x *faults) kill(ctx context.Context, rng *rand.Rand, n *node) {
	x.note("nodes killed")
	n.Kill()
	x.loses()
	wait(ctx, rng, 0, 1500*time.Millisecond)
	if err := n.Start(x.f.t.Context()); err != nil {
		x.f.t.Errorf("after a kill: %v", err)
	}
}

// restart is a restart in good order. If it meets an outage of PostgreSQL, what the node held may be lost.
func (x *faults) restart(n *node) {
	x.note("nodes restarted")
	began := time.Now()
	if err := n.Stop(); err != nil {
		x.f.t.Errorf("stop: %v", err)
	}
	if x.outageSince(began) {
		x.loses()
	}
	if err := n.Start(x.f.t.Context()); err != nil {
		x.f.t.Errorf("after a stop: %v", err)
	}
}

// cutOff has a node lose its way to the database for longer than its session runs.
func (x *faults) cutOff(ctx context.Context, n *node) {
	x.note("nodes cut off")
	x.loses()
	n.way.SetDown(true)
	n.way.Disconnect()
	select {
	case <-ctx.Done():
	case <-time.After(gone):
	}
	n.way.SetDown(false)
}

// pause stops a node for longer than its session runs. It does not notice.
func (x *faults) pause(ctx context.Context, n *node) {
	x.note("nodes paused")
	x.loses()
	if err := n.Signal(syscall.SIGSTOP); err != nil {
		x.f.t.Error(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(gone):
	}
	if err := n.Signal(syscall.SIGCONT); err != nil {
		x.f.t.Error(err)
	}
}

func (x *faults) killPostgres(ctx context.Context, rng *rand.Rand) {
	x.note("PostgreSQL killed")
	x.mu.Lock()
	x.outages = append(x.outages, span{from: time.Now()})
	x.mu.Unlock()
	if err := x.f.pg.Kill(); err != nil {
		x.f.t.Errorf("PostgreSQL: %v", err)
	}
	wait(ctx, rng, 0, 2*time.Second)
	if err := x.f.pg.Start(); err != nil {
		x.f.t.Errorf("PostgreSQL: %v", err)
	}
	x.mu.Lock()
	x.outages[len(x.outages)-1].to = time.Now()
	x.mu.Unlock()
}

// reconnects is how long after an outage a node may go on without the database.
const reconnects = 3 * time.Second

// outageSince reports whether PostgreSQL was away at any time since then.
func (x *faults) outageSince(t time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, o := range x.outages {
		if o.to.IsZero() || o.to.Add(reconnects).After(t) {
			return true
		}
	}
	return false
}

// since is the time from which use counts for what may be lost with a node that ended then. A lease fits what a caller used in the ten
// seconds before it, and a node that cannot reach the database reports nothing.
func (x *faults) since(end time.Time) time.Time {
	from := end
	for i := len(x.outages) - 1; i >= 0; i-- {
		if o := x.outages[i]; o.from.Before(from) && o.to.Add(reconnects).After(from) {
			from = o.from
		}
	}
	return from.Add(-leaseTime)
}

// leaseTime is the ten seconds, and one more for timers that are late and answers that were on their way.
const leaseTime = 11 * time.Second
