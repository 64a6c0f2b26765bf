package check

import (
	"context"
	"sync"
	"time"
)

// budget is a context with a deadline that costs nothing until somebody waits for its end. Nearly all checks find what they
// need in memory and never do; a timer for each of them would be the most expensive thing about it.
type budget struct {
	parent context.Context

	mu     sync.Mutex
	at     time.Time       // zero: a share of what the parent has left, from when somebody asks
	waited context.Context // made when somebody asks for Done
	cancel context.CancelFunc
}

var _ context.Context = (*budget)(nil)

// start gives the budget its end, or that of the parent if it is earlier.
func (b *budget) start(parent context.Context, at time.Time) {
	if end, ok := parent.Deadline(); ok && end.Before(at) {
		at = end
	}
	b.parent, b.at = parent, at
}

// share gives the budget all but policyShare of what the parent, which has a deadline, has left when the waiting begins.
func (b *budget) share(parent context.Context) { b.parent = parent }

func (b *budget) endLocked() time.Time {
	if b.at.IsZero() {
		at, _ := b.parent.Deadline()
		now := time.Now()
		left := at.Sub(now)
		b.at = now.Add(left - time.Duration(policyShare*float64(left)))
	}
	return b.at
}

// stop lets go of what was made for those who waited.
func (b *budget) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancel != nil {
		b.cancel()
	}
}

// Deadline is context.Context.
func (b *budget) Deadline() (time.Time, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.endLocked(), true
}

// Value is context.Context.
func (b *budget) Value(key any) any { return b.parent.Value(key) }

// Done is context.Context.
func (b *budget) Done() <-chan struct{} { return b.real().Done() }

// Err is context.Context. Without a timer it looks at the clock.
func (b *budget) Err() error {
	b.mu.Lock()
	waited, at := b.waited, b.endLocked()
	b.mu.Unlock()
	if waited != nil {
		if err := waited.Err(); err != nil {
			return err
		}
	} else if err := b.parent.Err(); err != nil {
		return err
	}
	if !time.Now().Before(at) {
		return context.DeadlineExceeded
	}
	return nil
}

// AfterFunc lets context.AfterFunc wait without a goroutine.
func (b *budget) AfterFunc(f func()) func() bool { return context.AfterFunc(b.real(), f) }

func (b *budget) real() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waited == nil {
		b.waited, b.cancel = context.WithDeadline(b.parent, b.endLocked())
	}
	return b.waited
}
