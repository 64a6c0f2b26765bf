package postgres

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// gate keeps callers from a database that cannot be reached. Once a connection cannot be made, or a server is silent, calls fail at once,
// and one probe at a time finds out when it is back: what waits for it does not storm it then.
type gate struct {
	probe func(context.Context) error
	log   *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	err    error // why calls fail; nil: they go through
	closed bool
}

// The pauses between two probes, which are jittered: nodes do not probe in step.
const (
	firstProbe  = 50 * time.Millisecond // doubled with every failure
	latestProbe = time.Second
)

func newGate(probe func(context.Context) error, log *slog.Logger) *gate {
	ctx, cancel := context.WithCancel(context.Background())
	return &gate{probe: probe, log: log, ctx: ctx, cancel: cancel}
}

// pass returns an error if the database cannot be reached.
func (g *gate) pass() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		return nil
	}
	return authz.Errorf(authz.KindUnavailable, "PostgreSQL could not be reached a moment ago: %w", g.err)
}

// shut has calls fail until a probe succeeds. err says why.
func (g *gate) shut(err error) {
	err = flat(err)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil || g.closed {
		return
	}
	g.err = err
	g.log.Warn("PostgreSQL cannot be reached", "error", err)
	g.wg.Go(g.reopen)
}

// reopen probes until that succeeds.
func (g *gate) reopen() {
	began := time.Now()
	for pause := firstProbe; ; pause = min(2*pause, latestProbe) {
		wait(g.ctx, pause/2+rand.N(pause/2))
		if g.ctx.Err() != nil {
			return
		}
		if g.probe(g.ctx) == nil {
			break
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = nil
	g.log.Info("PostgreSQL can be reached again", "after", time.Since(began).Round(time.Millisecond).String())
}

// close ends the probing.
func (g *gate) close() {
	g.cancel()
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.wg.Wait()
}
