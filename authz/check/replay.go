package check

import (
	"context"
	"hash/maphash"
	"maps"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// stream names one request at one proxy. Envoy may ask about it again, when the first answer was lost, and then sends
// the same number, the same time and the same connection. No client can choose any of the three.
type stream struct {
	id   string
	at   int64
	addr string
	port uint32
}

// streamOf names the request, and returns false if the proxy did not say enough.
func streamOf(r *authz.Request) (stream, bool) {
	if r.HTTP == nil || r.HTTP.ID == "" || r.Time.IsZero() {
		return stream{}, false
	}
	s := stream{id: r.HTTP.ID, at: r.Time.UnixNano()}
	if r.Source != nil && r.Source.Address != nil && r.Source.Address.Socket != nil {
		s.addr, s.port = r.Source.Address.Socket.Address, r.Source.Address.Socket.Port
	}
	return s, true
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
	seed   maphash.Seed
	now    func() time.Time
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
	holder      authz.Holder
	charge      authz.Charge
	reservation authz.Reservation
	users       int       // checks that rely on the reservation and have not been answered
	kept        time.Time // when the latest check began that was answered with it; zero: none was
}

func newReplays(now func() time.Time) *replays {
	return &replays{seed: maphash.MakeSeed(), now: now}
}

func (r *replays) shard(s stream) *replayShard {
	return &r.shards[maphash.Comparable(r.seed, s)%replayShards]
}

// enter returns what is known of the stream, made if there was nothing.
func (r *replays) enter(s stream) *charged {
	sh := r.shard(s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if now := r.now(); sh.young == nil || len(sh.young) >= replayLimit || now.Sub(sh.turnedAt) > replayMemory {
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
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.reservation.Holds():
		if !a.meter.Reserve(ctx, a.holder, a.limits, charge, a.facts.Quota, &c.reservation) {
			return nil
		}
		c.holder, c.charge, c.users, c.kept = a.holder, charge, 0, time.Time{}
	case c.holder == a.holder && maps.Equal(c.charge, charge):
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
	if c.users == 0 && began.After(c.kept) {
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
	if keep && s.began.After(c.kept) {
		c.kept = s.began
	}
	if c.users == 0 && c.kept.IsZero() {
		c.reservation.Cancel()
	}
}
