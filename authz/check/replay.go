package check

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// stream names one request at one proxy. Envoy may ask about it again, when the first answer was lost, and then sends
// the same number, the same time and the same connection. No client can choose any of the three.
//
// It is a hash of them under two seeds of this process alone: what is remembered must not keep the whole request in memory,
// and two streams share one by chance once in 2^127 pairs.
type stream [2]uint64

// streamOf names the request, and returns false if the proxy did not say enough.
func (r *replays) streamOf(q *authz.Request) (stream, bool) {
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
	return stream{maphash.Comparable(r.seeds[0], s), maphash.Comparable(r.seeds[1], s)}, true
}

const (
	// replayMemory is how long a stream is remembered, and up to twice that: many times longer than Envoy waits for an
	// answer. Where more than replayLimit streams of a shard are charged in that time, the oldest are forgotten first.
	replayMemory = 5 * time.Second
	replayShards = 64
	replayLimit  = 1024
)

// replays remembers what recent streams were charged, so that asking twice is one charge. Its methods may be called
// concurrently; streams share a lock only with those that hash alike, and never during I/O.
type replays struct {
	seeds  [2]maphash.Seed
	shards [replayShards]replayShard
}

// replayShard keeps two generations: the older one is dropped whole when the newer one is old or full.
type replayShard struct {
	mu       sync.Mutex
	young    map[stream]*charged
	old      map[stream]*charged
	turnedAt time.Time
}

// charged is what one stream was charged. All checks of the stream share it.
type charged struct {
	mu          sync.Mutex // held while a check of the stream reserves, which its deadline bounds
	what        uint64     // a hash of who was charged and how much
	reservation authz.Reservation
	users       int   // checks that rely on the reservation and have not been answered
	kept        int64 // when the latest check began that was answered with it, in Unix nanoseconds; 0: none was
}

func newReplays() *replays {
	return &replays{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
}

// whatOf is a hash of a charge, in which the order of its limits plays no part.
func (r *replays) whatOf(h authz.Holder, charge authz.Charge) uint64 {
	sum := maphash.Comparable(r.seeds[0], h)
	for name, units := range charge {
		sum += maphash.Comparable(r.seeds[1], struct {
			name  string
			units int64
		}{name, units})
	}
	return sum
}

func (r *replays) shard(s stream) *replayShard {
	return &r.shards[s[0]%replayShards]
}

// enter returns what is known of the stream, made if there was nothing.
func (r *replays) enter(s stream, now time.Time) *charged {
	sh := r.shard(s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.young == nil || len(sh.young) >= replayLimit || now.Sub(sh.turnedAt) > replayMemory {
		sh.old, sh.young, sh.turnedAt = sh.young, make(map[stream]*charged), now
	}
	c := sh.find(s)
	if c == nil {
		c = &charged{}
		sh.young[s] = c
	}
	return c
}

// known returns what is known of the stream, nil if nothing is.
func (r *replays) known(s stream) *charged {
	sh := r.shard(s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.find(s)
}

func (sh *replayShard) find(s stream) *charged {
	if c := sh.young[s]; c != nil {
		return c
	}
	return sh.old[s]
}

// reserve takes the charge for a check, or finds that a check of the same stream has taken it. It returns nil if there was
// too little.
func (c *charged) reserve(ctx context.Context, a *attempt, charge authz.Charge) taken {
	what := a.replays.whatOf(a.holder, charge)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.reservation.Holds():
		if !a.meter.Reserve(ctx, a.holder, a.limits, charge, a.facts.Quota, &c.reservation) {
			return nil
		}
		c.what, c.users, c.kept = what, 0, 0
	case c.what == what:
		a.meter.Peek(ctx, a.holder, a.limits, a.facts.Quota)
	default: // the stream costs something else now: two charges rather than none
		return a.takeAlone(ctx, charge)
	}
	c.users++
	a.share = share{charged: c, began: a.began, id: c.reservation.ID()}
	return &a.share
}

// undo gives the charge back when a check that began at that time is denied, and nobody who began later was allowed:
// the denial is then the last word on the stream, and what was answered before did not arrive.
func (c *charged) undo(began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users == 0 && began.UnixNano() > c.kept {
		c.reservation.Cancel()
	}
}

// share is one check's part in the charge of its stream.
type share struct {
	charged *charged
	began   time.Time // of the check
	id      string
	done    bool
}

// ID is that of the reservation that all checks of the stream share.
func (s *share) ID() string { return s.id }

// Keep says that the check is answered with the reservation.
func (s *share) Keep() { s.end(true) }

// Cancel gives the units back, unless another check of the stream relies on them.
func (s *share) Cancel() { s.end(false) }

func (s *share) end(keep bool) {
	c := s.charged
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.done {
		return
	}
	s.done = true
	c.users--
	if keep {
		c.kept = max(c.kept, s.began.UnixNano())
	}
	if c.users == 0 && c.kept == 0 {
		c.reservation.Cancel()
	}
}
