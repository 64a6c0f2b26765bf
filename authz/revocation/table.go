package revocation

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// table is the records in memory: of each only what matching needs, however long its names are.
//
// Reads take no lock. A write locks one of many shards, puts its record into a slot, and now and then moves the shard to
// one of twice the size, so that no write copies more than a small part of the whole. A lookup among millions of records
// costs as long as main memory takes to answer, once: there is one place to look at, and what stands beside it. A map of
// objects would have a second one, and the garbage collector would look at every object; here it finds no pointers.
type table struct {
	seeds  [2]maphash.Seed
	shards [256]shard
}

// shard is a hash table in which a record stands in the slot that its fingerprint says or, where there is another one, in
// the first one after it that was free. Nothing is ever taken out of a slot: what has expired is left behind when the
// others move.
type shard struct {
	slots atomic.Pointer[[]slot] // their number is a power of two

	mu   sync.Mutex // held by who writes
	used int
}

// slot is the place of a record. The atomic fields are read while others write; a and b never change once a is there.
type slot struct {
	a, b     atomic.Uint64 // the fingerprint; a is 0 where there is no record
	before   atomic.Int64
	expires  int64
	revision uint64
}

// fingerprint stands for a matcher. That two matchers share one is no concern: a request that is not revoked is taken for
// one of a million records with a probability of 2^-107, two of the records for each other with one of 2^-88, and nobody
// can look for such a pair, because the seeds are random, of this process alone, and never shown. Disks err more often.
type fingerprint struct{ a, b uint64 }

// matcher is what a record is found by.
type matcher struct {
	kind          Kind
	issuer, value string
}

// bounds are how far a record reaches.
type bounds struct {
	before   int64 // the last instant of issue that is cut off, or nothing
	expires  int64
	revision uint64
}

const (
	nothing = math.MinInt64 // lies before every instant
	forever = math.MaxInt64 // lies before none
)

// fewest is how many slots a shard begins with.
const fewest = 8

func newTable() *table {
	t := &table{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	for i := range t.shards {
		slots := make([]slot, fewest)
		t.shards[i].slots.Store(&slots)
	}
	return t
}

func (t *table) find(m matcher) (fingerprint, *shard) {
	f := fingerprint{maphash.Comparable(t.seeds[0], m) | 1, maphash.Comparable(t.seeds[1], m)}
	return f, &t.shards[f.a>>56]
}

// before is the last instant of issue that a record cuts off, nothing if there is none.
func (t *table) before(m matcher) int64 {
	f, s := t.find(m)
	if at, ok := slotOf(*s.slots.Load(), f); ok {
		return at.before.Load()
	}
	return nothing
}

// put puts a record in its place unless a later one stands there already.
func (t *table) put(r Record) {
	f, s := t.find(matcher{r.Kind, r.Issuer, r.Value})
	b := boundsOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	slots := *s.slots.Load()
	if at, ok := slotOf(slots, f); ok {
		if at.revision < b.revision {
			at.set(b)
		}
		return
	}
	if full(s.used, len(slots)) {
		s.moveLocked(2*len(slots), nothing)
		slots = *s.slots.Load()
	}
	insert(slots, f, b)
	s.used++
}

// drop forgets what expired before an instant.
func (t *table) drop(before int64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		if s.countLocked(before) < s.used {
			s.moveLocked(fewest, before)
		}
		s.mu.Unlock()
	}
}

func (t *table) size() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += s.used
		s.mu.Unlock()
	}
	return n
}

// moveLocked moves what has not expired to new slots, at least so many. Who reads meanwhile reads the old ones.
func (s *shard) moveLocked(atLeast int, expired int64) {
	n := s.countLocked(expired)
	for full(n, atLeast) {
		atLeast *= 2
	}
	slots, old := make([]slot, atLeast), *s.slots.Load()
	for i := range old {
		if at := &old[i]; at.lives(expired) {
			insert(slots, fingerprint{at.a.Load(), at.b.Load()}, bounds{at.before.Load(), at.expires, at.revision})
		}
	}
	s.used = n
	s.slots.Store(&slots)
}

// countLocked is how many records have not expired.
func (s *shard) countLocked(expired int64) (n int) {
	slots := *s.slots.Load()
	for i := range slots {
		if slots[i].lives(expired) {
			n++
		}
	}
	return n
}

// full reports whether one more record would make the way to the next free slot too long.
func full(records, slots int) bool { return records >= slots*5/8 }

func (at *slot) lives(expired int64) bool { return at.a.Load() != 0 && at.expires >= expired }

// slotOf is the slot of a record, or the free one in which it would be found.
func slotOf(slots []slot, f fingerprint) (at *slot, ok bool) {
	mask := uint64(len(slots) - 1)
	for i := f.b & mask; ; i = (i + 1) & mask {
		at := &slots[i]
		switch at.a.Load() {
		case f.a:
			if at.b.Load() == f.b {
				return at, true
			}
		case 0:
			return at, false
		}
	}
}

// insert puts a record into its slot. Readers see it when all of it is there.
func insert(slots []slot, f fingerprint, b bounds) {
	at, _ := slotOf(slots, f)
	at.set(b)
	at.b.Store(f.b)
	at.a.Store(f.a)
}

func (at *slot) set(b bounds) {
	at.expires, at.revision = b.expires, b.revision
	at.before.Store(b.before)
}

func boundsOf(r Record) bounds {
	b := bounds{revision: r.Revision, before: forever, expires: forever}
	if !r.Before.IsZero() {
		b.before = instant(r.Before)
	}
	if !r.ExpiresAt.IsZero() {
		b.expires = instant(r.ExpiresAt)
	}
	if r.Lifted {
		b.before = nothing
	}
	return b
}

// instant is a time in nanoseconds. What is too early or too late for that becomes the earliest and the latest there is:
// a credential whose time of issue is not known is the oldest of all, and every record reaches it.
func instant(t time.Time) int64 {
	const limit = math.MaxInt64 / int64(time.Second)
	switch seconds := t.Unix(); {
	case seconds <= -limit:
		return nothing + 1
	case seconds >= limit:
		return forever
	}
	return t.UnixNano()
}
