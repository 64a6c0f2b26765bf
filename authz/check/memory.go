package check

import (
	"context"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// This file exists only to make checks faster: it has pooled evaluations with preallocated memory, and deadlines without
// timers. Without it, each check would allocate an evaluation and call context.WithDeadline for each deadline. See
// authz/decisions/009 for the cost of that.

// evaluations is the pool. Nothing that outlives a check may point into an evaluation. A store may keep a deadline, so
// deadlines are allocated apart.
var evaluations = sync.Pool{New: func() any { return new(evaluation) }}

func newEvaluation() *evaluation { return evaluations.Get().(*evaluation) }

func (e *evaluation) release() {
	*e = evaluation{}
	evaluations.Put(e)
}

// memory is preallocated memory of an evaluation.
type memory struct {
	entry  Entry
	sole   authz.Reservation
	shared sharedCharge
	quotas [4]authz.QuotaFact
	params [4]authz.Param
}

// quotaFacts returns memory for n facts.
func (m *memory) quotaFacts(n int) []authz.QuotaFact {
	if n <= len(m.quotas) {
		return m.quotas[:n]
	}
	return make([]authz.QuotaFact, n)
}

// deadlines are the contexts of one check: one for the whole check, and one for each wait in its steps.
type deadlines struct {
	whole   lazyDeadline
	keys    lazyDeadline
	token   lazyDeadline
	peek    lazyDeadline
	reserve [2]lazyDeadline // one for each time that a check may try to reserve
}

// lazyDeadline is a context with a deadline. It costs nothing until a caller waits for its end. Nearly all checks find
// everything in memory and never wait. A timer for each of them would cost more than the rest of the check. The context of a wait
// ends before that of its check, so it has a timer of its own and none of the check's.
type lazyDeadline struct {
	parent context.Context

	mu     sync.Mutex
	at     time.Time       // zero: to be computed on first use, see waitContext
	timer  context.Context // made when a caller asks for Done, or ended
	cancel context.CancelFunc
	waits  *lazyDeadline // the first of the children that have a timer; of a child, the next of them
}

// ended is a context that has ended.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

var _ context.Context = (*lazyDeadline)(nil)

// until makes the context end at that time, or when the parent ends if that is earlier.
func (d *lazyDeadline) until(parent context.Context, at time.Time) context.Context {
	if end, ok := parent.Deadline(); ok && end.Before(at) {
		at = end
	}
	d.parent, d.at = parent, at
	return d
}

// waitContext returns the context for a wait for something that is not in memory. It ends before the parent does: at its first
// use it leaves policyShare of the parent's remaining time. The parent must have a deadline.
func (d *lazyDeadline) waitContext(parent context.Context) context.Context {
	d.parent = parent
	return d
}

func (d *lazyDeadline) endLocked() time.Time {
	if d.at.IsZero() {
		at, _ := d.parent.Deadline()
		now := time.Now()
		left := at.Sub(now)
		d.at = now.Add(left - time.Duration(policyShare*float64(left)))
	}
	return d.at
}

// stop ends the context and its children.
func (d *lazyDeadline) stop() {
	d.mu.Lock()
	next := d.waits
	if d.cancel != nil {
		d.cancel()
	} else {
		d.timer = ended
	}
	d.mu.Unlock()
	if next != nil {
		next.stop()
	}
}

// add has a child stopped with its parent. It returns false if that was stopped already.
func (d *lazyDeadline) add(child *lazyDeadline) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && d.timer.Err() != nil {
		return false
	}
	child.waits, d.waits = d.waits, child
	return true
}

// Deadline is context.Context.
func (d *lazyDeadline) Deadline() (time.Time, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.endLocked(), true
}

// Value is context.Context.
func (d *lazyDeadline) Value(key any) any { return d.parent.Value(key) }

// Done is context.Context.
func (d *lazyDeadline) Done() <-chan struct{} { return d.withTimer().Done() }

// Err is context.Context. Without a timer it looks at the clock.
func (d *lazyDeadline) Err() error {
	d.mu.Lock()
	timer, at := d.timer, d.endLocked()
	d.mu.Unlock()
	if timer != nil {
		if err := timer.Err(); err != nil {
			return err
		}
	} else if err := d.parent.Err(); err != nil {
		return err
	}
	if !time.Now().Before(at) {
		return context.DeadlineExceeded
	}
	return nil
}

// AfterFunc lets context.AfterFunc and child contexts wait without a goroutine.
func (d *lazyDeadline) AfterFunc(f func()) func() bool { return context.AfterFunc(d.withTimer(), f) }

func (d *lazyDeadline) withTimer() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		return d.timer
	}
	parent, at := d.parent, d.endLocked()
	if whole, ok := parent.(*lazyDeadline); ok {
		if !whole.add(d) {
			d.timer = ended
			return ended
		}
		parent = whole.parent
	}
	d.timer, d.cancel = context.WithDeadline(parent, at)
	return d.timer
}
