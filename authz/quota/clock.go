package quota

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Clock is the time by which periods run. It follows the wall clock, but does not believe a jump at once: a wall clock that
// says 2036 for a moment must not open periods of 2036.
//
// It compares the wall clock with the monotonic clock. If the two drift apart by more than ClockJump, it follows the monotonic
// one, until the wall clock is back or has gone on without another jump for believeAfter. A wall clock that is wrong from the
// start, or for longer, is believed; Book corrects what that left behind. Its methods may be called concurrently.
type Clock struct {
	read   func() (wall time.Time, ran time.Duration)
	report func(jump time.Duration, believed bool)
	good   atomic.Pointer[reading] // the last that was believed, or a little older

	mu     sync.Mutex
	jumped *reading // the first after a jump that is not believed yet
}

// reading is the time on both clocks at one instant.
type reading struct {
	wall int64         // in Unix nanoseconds
	ran  time.Duration // on the monotonic clock
}

const (
	believeAfter = 5 * time.Minute
	// rebase is how often Clock.good is renewed. Without it a wall clock that is slewed, a little faster or slower than the
	// monotonic one, would look like a jump in the end.
	rebase = time.Minute
)

// NewClock makes a clock that follows the wall clock. It calls report when the wall clock jumps, when the jump is believed, and
// with 0 when the wall clock is back. report must not block.
func NewClock(report func(jump time.Duration, believed bool)) *Clock {
	began := time.Now()
	return newClock(func() (time.Time, time.Duration) {
		now := time.Now()
		return now, now.Sub(began)
	}, report)
}

func newClock(read func() (time.Time, time.Duration), report func(time.Duration, bool)) *Clock {
	c := &Clock{read: read, report: report}
	wall, ran := read()
	c.good.Store(&reading{wall.UnixNano(), ran})
	return c
}

// Now is the time.
func (c *Clock) Now() time.Time {
	wall, ran := c.read()
	at, good := reading{wall.UnixNano(), ran}, c.good.Load()
	switch jump := at.since(good); {
	case jump.Abs() > ClockJump:
		return c.disbelieve(wall, at)
	case ran-good.ran > rebase:
		next := at // or each call would need memory for at
		c.good.CompareAndSwap(good, &next)
		c.back()
	}
	return wall
}

// since is how far the wall clock has moved against the monotonic one.
func (r reading) since(good *reading) time.Duration {
	return time.Duration(r.wall-good.wall) - (r.ran - good.ran)
}

// disbelieve returns the time as it would be without the jump, until it is time to believe the jump.
func (c *Clock) disbelieve(wall time.Time, at reading) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	good := c.good.Load()
	jump := at.since(good)
	switch {
	case jump.Abs() <= ClockJump: // another call has believed it
		return wall
	case c.jumped == nil || at.since(c.jumped).Abs() > ClockJump:
		c.jumped = &at
		c.report(jump, false)
	case at.ran-c.jumped.ran >= believeAfter:
		c.jumped = nil
		c.good.Store(&at)
		c.report(jump, true)
		return wall
	}
	return time.Unix(0, good.wall).Add(at.ran - good.ran)
}

// back notes that the wall clock is right.
func (c *Clock) back() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.jumped != nil {
		c.jumped = nil
		c.report(0, false)
	}
}

// Doubt says why the wall clock is not believed. It is empty if the wall clock is believed.
func (c *Clock) Doubt() string {
	wall, ran := c.read()
	jump := reading{wall.UnixNano(), ran}.since(c.good.Load())
	if jump.Abs() <= ClockJump {
		return ""
	}
	return fmt.Sprintf("the clock jumped by %[2]s to %[1]s: quotas count as if it had not, until it has gone on for %[3]s",
		wall.UTC().Format(time.RFC3339), jump.Round(time.Second), believeAfter)
}
