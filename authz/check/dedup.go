package check

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// stream names one request at one proxy. Envoy may ask about it again when the first answer was lost, and then sends the same
// number, time and connection. No client can choose any of the three.
//
// It is a hash of them under two random seeds of this process, so that a remembered stream does not keep the request in memory.
// Two streams get the same name by chance once in 2^127 pairs.
type stream [2]uint64

// streamOf names the request. It returns false if the proxy did not say enough.
func (d *chargeDedup) streamOf(q *authz.Request) (stream, bool) {
	if q.HTTP == nil || q.HTTP.ID == "" || q.Time.IsZero() {
		return stream{}, false
	}
	s := struct {
		id   string
		at   int64
		addr string
		port uint32
	}{id: q.HTTP.ID, at: q.Time.UnixNano()}
	if q.Source != nil && q.Source.Address != nil && q.Source.Address.Socket != nil {
		s.addr, s.port = q.Source.Address.Socket.Address, q.Source.Address.Socket.Port
	}
	return stream{maphash.Comparable(d.seeds[0], s), maphash.Comparable(d.seeds[1], s)}, true
}

const (
	// streamTTL is how long a stream is remembered at least, and twice that at most. It is many times longer than Envoy waits
	// for an answer. If a shard gets more than maxStreams new streams in that time, it forgets the oldest ones earlier.
	streamTTL   = 5 * time.Second
	dedupShards = 64
	maxStreams  = 1024
)

// chargeDedup remembers what recent streams were charged, so that a proxy that asks twice causes one charge. Its methods may
// be called concurrently. Only streams in the same shard share a lock, and never during I/O.
type chargeDedup struct {
	seeds  [2]maphash.Seed
	shards [dedupShards]dedupShard
}

// dedupShard keeps two generations of streams. When young is old enough or full, old is dropped whole and young becomes old.
type dedupShard struct {
	mu        sync.Mutex
	young     map[stream]*streamCharge
	old       map[stream]*streamCharge
	rotatedAt time.Time
}

func newChargeDedup() *chargeDedup {
	return &chargeDedup{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
}

func (d *chargeDedup) shard(s stream) *dedupShard { return &d.shards[s[0]%dedupShards] }

// chargeOf returns the charge of the stream. It makes one for a new stream.
func (d *chargeDedup) chargeOf(s stream, now time.Time) *streamCharge {
	sh := d.shard(s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.young == nil || len(sh.young) >= maxStreams || now.Sub(sh.rotatedAt) > streamTTL {
		sh.old, sh.young, sh.rotatedAt = sh.young, make(map[stream]*streamCharge), now
	}
	c := sh.findLocked(s)
	if c == nil {
		c = &streamCharge{}
		sh.young[s] = c
	}
	return c
}

// find returns the charge of the stream, nil if there is none.
func (d *chargeDedup) find(s stream) *streamCharge {
	sh := d.shard(s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.findLocked(s)
}

func (sh *dedupShard) findLocked(s stream) *streamCharge {
	if c := sh.young[s]; c != nil {
		return c
	}
	return sh.old[s]
}

// hashOf is a hash of a charge and its holder. It does not depend on the order of the limits.
func (d *chargeDedup) hashOf(h authz.Holder, charge authz.Charge) uint64 {
	sum := maphash.Comparable(d.seeds[0], h)
	for name, units := range charge {
		sum += maphash.Comparable(d.seeds[1], struct {
			name  string
			units int64
		}{name, units})
	}
	return sum
}

// streamCharge is what one stream was charged. All checks of the stream share it.
type streamCharge struct {
	mu          sync.Mutex // held while a check of the stream reserves, no longer than its deadline
	hash        uint64     // of the holder and the charge
	reservation authz.Reservation
	unanswered  int   // checks that rely on the reservation and have no answer yet
	keptAt      int64 // the latest beginning of a check that was allowed with the reservation, in Unix nanoseconds; 0 for none
}

// reserve takes the charge for a check, unless another check of the same stream has taken it already. It returns nil if there
// is too little.
func (c *streamCharge) reserve(ctx context.Context, e *evaluation, charge authz.Charge) heldCharge {
	hash := e.dedup.hashOf(e.holder, charge)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.reservation.Holds():
		if !e.meter.Reserve(ctx, e.holder, e.limits, charge, e.facts.Quota, &c.reservation) {
			return nil
		}
		c.hash, c.unanswered, c.keptAt = hash, 0, 0
	case c.hash == hash:
		e.meter.Peek(ctx, e.holder, e.limits, e.facts.Quota)
	default: // the stream costs something else now: charge it twice rather than not at all
		return e.takeSole(ctx, charge)
	}
	c.unanswered++
	e.shared = sharedCharge{stream: c, began: e.began, id: c.reservation.ID()}
	return &e.shared
}

// refund gives the charge back when a check is denied, unless a check that began later was allowed. If Envoy asks again after an
// allow, it has not received that answer, so the denial counts.
func (c *streamCharge) refund(began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unanswered == 0 && began.UnixNano() > c.keptAt {
		c.reservation.Cancel()
	}
}

// sharedCharge is the charge of a stream as held by one of its checks.
type sharedCharge struct {
	stream *streamCharge
	began  time.Time // of the check
	id     string
	ended  bool
}

// ID names the reservation that all checks of the stream share.
func (s *sharedCharge) ID() string { return s.id }

// Keep says that the check is answered with the reservation.
func (s *sharedCharge) Keep() { s.end(true) }

// Cancel gives the units back, unless another check of the stream relies on them.
func (s *sharedCharge) Cancel() { s.end(false) }

func (s *sharedCharge) end(keep bool) {
	c := s.stream
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	c.unanswered--
	if keep {
		c.keptAt = max(c.keptAt, s.began.UnixNano())
	}
	if c.unanswered == 0 && c.keptAt == 0 {
		c.reservation.Cancel()
	}
}
