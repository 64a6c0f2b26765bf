package postgres

import (
	"context"
	"sync"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// lanes has the verbs that wait share transactions. A few batches run at a time, so that the next fills while one commits. A batch passes
// over records that are locked elsewhere: such a holder gets a lane of its own, in which one transaction at a time waits for the lock. So one
// holder who is busy on many nodes, or whose record somebody forgot to unlock, holds up nobody else.
type lanes struct {
	// run is one transaction. If wait is false it may leave asks undone, and sets again on these. The error is that of all.
	run func(ctx context.Context, asks []*ask, wait bool) error
	// slots bounds how many holders have a transaction of their own at once.
	slots   chan struct{}
	batches int // that may run at once
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu      sync.Mutex
	queue   []*ask
	running int
	hot     map[quota.HolderID][]*ask // what waits for the next transaction of that holder
	closed  bool
}

// maxBatch is how many verbs one transaction has at the most.
const maxBatch = 512

// ask is one verb about one holder.
type ask struct {
	holder quota.HolderID
	id     string // of a settlement, "" if the verb has none
	// apply carries out the verb on the holder's record. It may be called several times, in transactions that do not take place. The last
	// call counts.
	apply func(*change, *kept)
	again bool // it was left undone
	call  *call
}

// call is a call of Ledger that waits for its asks.
type call struct {
	done chan struct{} // closed after the last

	mu      sync.Mutex
	pending int
	err     error // the first
	gone    bool  // nobody waits any more
}

func newLanes(connections int, run func(context.Context, []*ask, bool) error) *lanes {
	n := max(1, connections*4/10) // each kind: the rest is for other work
	ctx, cancel := context.WithCancel(context.Background())
	return &lanes{run: run, slots: make(chan struct{}, n), batches: n, ctx: ctx, cancel: cancel, hot: make(map[quota.HolderID][]*ask)}
}

// do carries out asks, and waits. If ctx ends before, they may take place all the same.
func (l *lanes) do(ctx context.Context, asks []*ask) error {
	if len(asks) == 0 {
		return nil
	}
	c := &call{done: make(chan struct{}), pending: len(asks)}
	for _, a := range asks {
		a.call = c
	}
	if err := ctx.Err(); err != nil {
		return unavailable(err)
	}
	if !l.enqueue(asks) {
		return errClosed
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		c.mu.Lock()
		c.gone = true
		c.mu.Unlock()
		return unavailable(ctx.Err())
	}
}

// answer notes that an ask was carried out, or why not.
func (c *call) answer(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	if c.pending--; c.pending == 0 {
		close(c.done)
	}
}

// over reports whether nobody waits for the call any more. Its verbs are repeated by whoever wants them.
func (c *call) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// enqueue has asks wait for the next batch.
func (l *lanes) enqueue(asks []*ask) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.queue = append(l.queue, asks...)
	if l.running < l.batches {
		l.running++
		l.wg.Go(l.runBatches)
	}
	return true
}

// runBatches runs batches until nothing waits.
func (l *lanes) runBatches() {
	for {
		batch := l.next()
		if len(batch) == 0 {
			return
		}
		err := l.run(l.ctx, batch, false)
		for _, a := range batch {
			if err == nil && a.again {
				l.heat(a)
			} else {
				a.call.answer(err)
			}
		}
	}
}

// next takes the next batch from the queue.
func (l *lanes) next() (batch []*ask) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(batch) < maxBatch && len(l.queue) > 0 {
		a := l.queue[0]
		l.queue[0] = nil
		l.queue = l.queue[1:]
		switch waiting, hot := l.hot[a.holder]; {
		case a.call.over():
		case hot:
			l.hot[a.holder] = append(waiting, a)
		default:
			batch = append(batch, a)
		}
	}
	if len(l.queue) == 0 {
		l.queue = nil
	}
	if len(batch) == 0 {
		l.running--
	}
	return batch
}

// heat puts an ask into its holder's lane.
func (l *lanes) heat(a *ask) {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting, hot := l.hot[a.holder]
	l.hot[a.holder] = append(waiting, a)
	if !hot {
		l.wg.Go(func() { l.runHot(a.holder) })
	}
}

// runHot runs transactions of one holder until nothing waits.
func (l *lanes) runHot(h quota.HolderID) {
	for {
		l.slots <- struct{}{}
		asks := l.nextHot(h)
		var err error
		if len(asks) > 0 {
			err = l.run(l.ctx, asks, true)
		}
		<-l.slots
		for _, a := range asks {
			a.call.answer(err)
		}
		if len(asks) == 0 {
			return
		}
	}
}

func (l *lanes) nextHot(h quota.HolderID) []*ask {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.hot[h]
	asks := waiting[:0:0]
	for len(waiting) > 0 && len(asks) < maxBatch {
		if !waiting[0].call.over() {
			asks = append(asks, waiting[0])
		}
		waiting = waiting[1:]
	}
	if l.hot[h] = waiting; len(asks) == 0 {
		delete(l.hot, h)
	}
	return asks
}

// close refuses new asks, breaks off transactions, and waits.
func (l *lanes) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	l.wg.Wait()
}
