package bolt

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// committer is the one goroutine that writes to a lane. It takes all operations that wait, a group, and runs them in one
// transaction.
//
//  1. The operations run one after the other. Each sees what those before it wrote.
//  2. If an operation fails after it wrote something, the transaction is rolled back, that operation is answered, and the
//     others run again without it. One that fails without a write is answered with the others.
//  3. The transaction is made durable, whatever the number of operations.
//  4. Memory is brought up to date, then all are answered.
//
// A crash before the end of 3 loses the whole group, and none of it was acknowledged. If 3 fails, it is unknown what is on disk:
// all are answered with KindUnavailable.
type committer struct {
	lane lane
	log  *slog.Logger

	queue chan *op
	quit  chan struct{} // closed by stop
	done  chan struct{} // closed when the goroutine has ended

	mu      sync.RWMutex
	closed  bool           // no more writes are admitted
	writers sync.WaitGroup // the admitted writes that are not answered yet
}

// lane is where transactions are made durable. A DB has two: the file, for keys and revocations, and the write-ahead log, for the
// ledger. They have no bucket in common, so that neither waits for the other.
type lane interface {
	// begin starts a transaction. There is one at a time.
	begin() (transaction, error)
}

type transaction interface {
	write() *write // for one operation
	commit() error
	rollback() // does nothing after a commit
}

// op is one write.
type op struct {
	run       func(*write) error // may run more than once
	abandoned atomic.Bool        // its caller has stopped waiting
	done      chan error         // has room for the answer

	// The outcome of the last run, for the committer.
	err   error
	after []func()
}

// maxGroup bounds how many operations are repeated when a transaction is rolled back.
const maxGroup = 512

func newCommitter(l lane, log *slog.Logger) *committer {
	return &committer{lane: l, log: log, queue: make(chan *op), quit: make(chan struct{}), done: make(chan struct{})}
}

// mutate runs a write and returns its result when it is durable.
func mutate[T any](ctx context.Context, c *committer, run func(*write) (T, error)) (T, error) {
	var out, zero T
	err := c.do(ctx, func(w *write) (err error) {
		out, err = run(w)
		return err
	})
	if err != nil {
		return zero, err // out may still be written to
	}
	return out, nil
}

// do runs a write and returns when it is durable. If the context ends before, the write may take place all the same.
func (c *committer) do(ctx context.Context, run func(*write) error) error {
	if err := ctx.Err(); err != nil {
		return authz.Errorf(authz.KindUnavailable, "not written: %w", err)
	}
	if !c.admit() {
		return authz.Errorf(authz.KindUnavailable, "not written: the store is closed")
	}
	defer c.writers.Done()
	o := &op{run: run, done: make(chan error, 1)}
	select {
	case c.queue <- o:
	case <-ctx.Done():
		return authz.Errorf(authz.KindUnavailable, "not written: %w", ctx.Err())
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		o.abandoned.Store(true)
		return authz.Errorf(authz.KindUnavailable, "may have been written or not: %w", ctx.Err())
	}
}

// admit counts a write in, unless the committer is closed.
func (c *committer) admit() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.closed {
		c.writers.Add(1)
	}
	return !c.closed
}

// stop refuses new writes, waits until the admitted ones are answered, and ends the goroutine. It returns false if it was called
// already.
func (c *committer) stop() bool {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	c.mu.Unlock()
	if was {
		return false
	}
	c.writers.Wait()
	close(c.quit)
	<-c.done
	return true
}

// run is the committer's goroutine.
func (c *committer) run() {
	defer close(c.done)
	debug.SetPanicOnFault(true) // a damaged page may point anywhere
	for {
		select {
		case first := <-c.queue:
			c.commit(c.gather(first))
		case <-c.quit:
			return
		}
	}
}

// gather takes all operations that wait.
func (c *committer) gather(first *op) []*op {
	group := []*op{first}
	runtime.Gosched() // callers that were just answered may want to write again
	for len(group) < maxGroup {
		select {
		case o := <-c.queue:
			group = append(group, o)
		default:
			return group
		}
	}
	return group
}

// commit answers every operation of the group.
func (c *committer) commit(group []*op) {
	for len(group) > 0 {
		failed, err := c.runGroup(group)
		if failed != nil {
			failed.done <- err
			group = slices.DeleteFunc(group, func(o *op) bool { return o == failed })
			continue
		}
		for _, o := range group {
			if err == nil && o.err == nil {
				for _, fn := range o.after {
					fn()
				}
			}
		}
		for _, o := range group {
			if err != nil {
				o.err = err // also for one that wrote nothing: it may have read what the others changed
			}
			o.done <- o.err
		}
		return
	}
}

// runGroup runs the operations in one transaction. If an operation fails after it wrote something, runGroup returns it with its
// error; else the error is that of the transaction.
func (c *committer) runGroup(group []*op) (failed *op, err error) {
	tx, err := c.lane.begin()
	if err != nil {
		return nil, err
	}
	defer tx.rollback()
	wrote := false
	for _, o := range group {
		w := tx.write()
		o.err, o.after = c.runOne(o, w), w.after
		if o.err != nil && w.wrote {
			return o, o.err
		}
		wrote = wrote || w.wrote
	}
	if !wrote {
		return nil, nil
	}
	return nil, tx.commit()
}

func (c *committer) runOne(o *op, w *write) (err error) {
	if o.abandoned.Load() {
		return authz.Errorf(authz.KindUnavailable, "not written: its caller has stopped waiting")
	}
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("a write panicked and was undone", "panic", p, "stack", string(debug.Stack()))
			w.wrote = true // it may have
			err = authz.Errorf(authz.KindUnavailable, "not written: internal error")
		}
	}()
	return o.run(w)
}
