package holding

import (
	"math"
	"sync/atomic"
	"time"
)

// Session is the time in which a node may serve from its leases. The zero value has not begun. Runs may be called at any time,
// Renew needs a lock of the caller's.
type Session struct {
	base   time.Time    // sessions run out by the time since base, so that steps of the wall clock do not count
	until  atomic.Int64 // nanoseconds since base
	number atomic.Uint64
}

// Sent is when a request was first sent, and in which session.
type Sent struct {
	At      time.Time
	Session uint64
}

// NewSession makes a session that has not begun. base is any instant before with a monotonic part.
func NewSession(base time.Time) *Session { return &Session{base: base} }

// Renew has the session of that number run for a term from the time at which the node asked for it.
func (s *Session) Renew(number uint64, asked time.Time, term time.Duration) {
	s.number.Store(number) // before until: Runs reads them the other way round, so it never takes the term of one for another
	s.until.Store(int64(asked.Sub(s.base) + term))
}

// sessionTime is an instant as the time since the base of a Session, which takes a third of the memory.
type sessionTime time.Duration

// never is no instant.
const never sessionTime = math.MinInt64

func (s *Session) at(t time.Time) sessionTime {
	if t.IsZero() {
		return never
	}
	return sessionTime(t.Sub(s.base))
}

func (s *Session) time(t sessionTime) time.Time {
	if t == never {
		return time.Time{}
	}
	return s.base.Add(time.Duration(t))
}

// since is how long ago that was.
func (s *Session) since(now time.Time, t sessionTime) time.Duration {
	return now.Sub(s.base) - time.Duration(t)
}

// Number is that of the last session, 0 before the first.
func (s *Session) Number() uint64 { return s.number.Load() }

// Runs reports whether the session of that number runs.
func (s *Session) Runs(number uint64, now time.Time) bool {
	return int64(now.Sub(s.base)) < s.until.Load() && number == s.number.Load() && number != 0
}

// Good reports whether any session runs at that time.
func (s *Session) Good(now time.Time) bool { return s.Runs(s.number.Load(), now) }
