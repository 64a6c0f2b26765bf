package nodes

import (
	"context"
	"flag"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"
)

var (
	runFor  = flag.Duration("nodes.for", 36*time.Second, "how long there is load, both tests together")
	runSeed = flag.Uint64("nodes.seed", 0, "repeat the random choices of an earlier run; how far processes get before they are killed still depends on the machine")
)

// run is one test.
type run struct {
	t *testing.T
	f *fleet
	w *world
	c *clients
	x *faults
}

// TestNodes_BehindOneEnvoy has Envoy ask four nodes in turn.
func TestNodes_BehindOneEnvoy(t *testing.T) {
	// After five seconds without the feed of changes a node serves nobody.
	test(t, layout{envoys: 1, staleness: 5 * time.Second})
}

// TestNodes_BehindFourEnvoys has four Envoys, each with a node of its own. A node may go on without the database for as long as its
// session runs.
func TestNodes_BehindFourEnvoys(t *testing.T) {
	test(t, layout{envoys: nodeCount, staleness: 2 * gone})
}

func test(t *testing.T, l layout) {
	seed, length := *runSeed, *runFor/2
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("%v of load; repeat the choices with -nodes.seed=%d", length, seed)
	r := &run{t: t, f: startFleet(t, l), w: newWorld(l.staleness + time.Second)}
	r.c, r.x = &clients{f: r.f, w: r.w}, &faults{f: r.f, count: make(map[string]int)}
	r.c.begin()
	r.check("the start")

	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	r.c.load(ctx, seed)
	r.x.start(ctx, seed, length)
	r.c.wg.Wait()
	r.x.wg.Wait()
	asked := r.report(length)
	r.check("the load")
	r.calm()
	r.verify()
	if served := r.f.served.Load(); served != r.w.allowed {
		t.Errorf("%d requests reached the service, and %d were answered with 200", served, r.w.allowed)
	}
	if asked == 0 {
		t.Error("no request was allowed under load")
	}
}

// check reports what is wrong so far, and ends the test then.
func (r *run) check(after string) {
	r.t.Helper()
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	for _, f := range r.w.faults {
		r.t.Errorf("after %s: %s", after, f)
	}
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// calm waits until every node serves, without anybody having touched it.
func (r *run) calm() {
	r.t.Helper()
	began := time.Now()
	for i, n := range r.f.nodes {
		var a *account
		await(r.t, "a node takes writes", func() bool {
			a = r.c.makeAccount(n, "calm")
			return a != nil && len(a.keys) == each
		})
		await(r.t, "all nodes serve", func() bool {
			for range 3 * nodeCount {
				if status, _ := r.c.askAt(i, a.keys[0]); status != http.StatusOK {
					return false
				}
			}
			return true
		})
	}
	r.w.locked(func() { r.w.calm = true })
	r.t.Logf("after the last fault, all nodes served within %v", time.Since(began).Round(10*time.Millisecond))
}
