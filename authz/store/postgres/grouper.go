package postgres

import (
	"context"
	"sync"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// grouper has writes that wait share one transaction. One transaction runs at a time; what comes meanwhile is in the next. It is for
// writes that wait for each other in the database anyway, and that a row lock would let through one by one.
type grouper[T any] struct {
	// run carries out writes, and sets what each one's caller wants to know. The error is that of all.
	run func(writes []*T) error

	mu      sync.Mutex
	waiting []*grouped[T]
	running bool
	closed  bool
	wg      sync.WaitGroup
}

type grouped[T any] struct {
	write *T
	done  chan error // has room for the answer
}

// maxGroup is how many writes one transaction has at the most.
const maxGroup = 512

// do carries out a write. If the context ends before, the write may take place all the same, and the caller must not read it.
func (g *grouper[T]) do(ctx context.Context, write *T) error {
	if err := ctx.Err(); err != nil {
		return authz.Errorf(authz.KindUnavailable, "not written: %w", err)
	}
	w := &grouped[T]{write, make(chan error, 1)}
	if !g.add(w) {
		return authz.Errorf(authz.KindUnavailable, "not written: the store is closed")
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return authz.Errorf(authz.KindUnavailable, "may have been written or not: %w", ctx.Err())
	}
}

// add has a write wait, unless the grouper is closed.
func (g *grouper[T]) add(w *grouped[T]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.waiting = append(g.waiting, w)
	if !g.running {
		g.running = true
		g.wg.Go(g.runAll)
	}
	return true
}

// runAll runs groups until nothing waits.
func (g *grouper[T]) runAll() {
	for {
		group := g.next()
		if len(group) == 0 {
			return
		}
		writes := make([]*T, len(group))
		for i, w := range group {
			writes[i] = w.write
		}
		err := g.run(writes)
		for _, w := range group {
			w.done <- err
		}
	}
}

func (g *grouper[T]) next() []*grouped[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), maxGroup)
	group := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	g.running = n > 0
	return group
}

// close refuses new writes and waits for those that wait.
func (g *grouper[T]) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.wg.Wait()
}
