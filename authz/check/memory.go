package check

import (
	"context"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// This file holds what exists only to make a check cheap: pooled evaluations with preallocated memory, and deadlines that
// set no timer. Without it, an evaluation would be a new one every time, and each deadline a context.WithDeadline. What that
// would cost stands in authz/decisions/009.

// evaluations are used again. Nothing that outlives a check may point into one: deadlines, which a store may keep, are
// allocated apart.
var evaluations = sync.Pool{New: func() any { return new(evaluation) }}

func newEvaluation() *evaluation { return evaluations.Get().(*evaluation) }

func (e *evaluation) release() {
	*e = evaluation{}
	evaluations.Put(e)
}

// memory is the part of an evaluation that would otherwise be allocated when it is needed.
type memory struct {
	entry  Entry
	sole   authz.Reservation
	shared sharedCharge
	quotas [4]authz.QuotaFact
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

// lazyDeadline is a context with a deadline that costs nothing until a caller waits for its end. Nearly all checks find what
// they need in memory and never wait. A timer for each of them would cost more than the rest of the check.
type lazyDeadline struct {
	parent context.Context

	mu     sync.Mutex
	at     time.Time       // zero: a part of the time that the parent has left, beginning with the first question about it
	timer  context.Context // made when a caller asks for Done
	cancel context.CancelFunc
}

var _ context.Context = (*lazyDeadline)(nil)

// until makes the context end at that time, or when the parent ends if that is earlier.
func (d *lazyDeadline) until(parent context.Context, at time.Time) context.Context {
	if end, ok := parent.Deadline(); ok && end.Before(at) {
		at = end
	}
	d.parent, d.at = parent, at
	return d
}

// waitContext makes the context of a wait for something that is not in memory. It gives the wait all of the time that the
// parent has left, but for policyShare. The parent must have a deadline.
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
	defer d.mu.Unlock()
	if d.cancel != nil {
		d.cancel()
	}
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
	if d.timer == nil {
		d.timer, d.cancel = context.WithDeadline(d.parent, d.endLocked())
	}
	return d.timer
}
