package revocation

import (
	"math"
	"time"
)

// matcher is what a record is found by.
type matcher struct {
	kind          Kind
	issuer, value string
}

// bounds are all that matching needs of a record. Times are in nanoseconds since 1970.
type bounds struct {
	before   int64 // cuts off what was issued until then
	expires  int64
	revision uint64
}

const (
	never   = math.MinInt64 // earlier than every instant
	forever = math.MaxInt64 // later than every instant
)

func boundsOf(r Record) bounds {
	b := bounds{revision: r.Revision, before: forever, expires: forever}
	if !r.Before.IsZero() {
		b.before = instant(r.Before)
	}
	if !r.ExpiresAt.IsZero() {
		b.expires = instant(r.ExpiresAt)
	}
	if r.Lifted {
		b.before = never
	}
	return b
}

// instant is a time in nanoseconds. A time that is too early or too late for that becomes the earliest or the latest there
// is: a credential whose time of issue is not known counts as the oldest, and every record reaches it.
func instant(t time.Time) int64 {
	const limit = math.MaxInt64 / int64(time.Second)
	switch seconds := t.Unix(); {
	case seconds <= -limit:
		return never + 1
	case seconds >= limit:
		return forever
	}
	return t.UnixNano()
}
