package dispenser

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/holding"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// idleHolders is what the node has of callers who did not come lately: two short texts without pointers for each, where a holder
// in use is a dozen objects that the garbage collector has to visit. A caller who comes again finds the lease as it was, and the
// ledger is not asked. The zero value is empty. Its methods may be called concurrently.
type idleHolders struct {
	began  time.Time // instants are kept as the time since then
	limits limitTable
	shards [idleShards]idleShard
	turn   atomic.Uint32 // of the sweep
}

type idleShard struct {
	mu      sync.Mutex
	holders map[string]string // by idleKey
}

const (
	idleShards = 128
	// keepIdle is for how long a lease is kept for a caller who does not come. Longer would leave what was used unreported for
	// longer; shorter would cost a write for each caller who comes now and then.
	keepIdle = 10 * time.Minute
	// keepTold is for how long it is kept what was spent of a lease that is used up or given back: the ledger may lose what it was told.
	// A copy of the ledger that takes over is not further behind than that.
	keepTold = 2 * time.Minute
)

// limitTable numbers limits, so that what is kept need not point to them. It grows with each limit that plans ever had, but not with
// a plan that is loaded again.
type limitTable struct {
	mu     sync.Mutex
	number map[limitKey]int
	limits []*authz.Limit
}

// limitKey is a limit with the name of its zone: each loading makes a new zone.
type limitKey struct {
	authz.Limit
	zone string
}

func (t *limitTable) numberOf(l *authz.Limit) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := limitKey{Limit: *l, zone: l.Zone.String()} // of nil it is UTC
	key.Zone = nil
	n, ok := t.number[key]
	if !ok {
		if t.number == nil {
			t.number = make(map[limitKey]int)
		}
		n = len(t.limits)
		t.number[key], t.limits = n, append(t.limits, l)
	}
	return n
}

func (t *limitTable) limit(n int) *authz.Limit {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.limits[n]
}

// idleKey is the name of a holder as one text.
func idleKey(id quota.HolderID) string { return string(id.Per) + "\x00" + id.Holder }

func idOf(key string) quota.HolderID {
	per, holder, _ := strings.Cut(key, "\x00")
	return quota.HolderID{Per: authz.Per(per), Holder: holder}
}

// shard is where a holder of that name is kept.
func (i *idleHolders) shard(key string) *idleShard {
	n := uint32(2166136261) // FNV-1a
	for j := range len(key) {
		n = (n ^ uint32(key[j])) * 16777619
	}
	return &i.shards[n%idleShards]
}

func (i *idleHolders) put(id quota.HolderID, text string) {
	key := idleKey(id)
	s := i.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holders == nil {
		s.holders = make(map[string]string)
	}
	s.holders[key] = text
}

// take takes out what was kept, "" for nothing.
func (i *idleHolders) take(id quota.HolderID) string {
	key := idleKey(id)
	s := i.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.holders[key]
	delete(s.holders, key)
	return text
}

func (i *idleHolders) has(id quota.HolderID) bool {
	key := idleKey(id)
	s := i.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.holders[key]
	return ok
}

func (i *idleHolders) size() (n int) {
	for j := range i.shards {
		s := &i.shards[j]
		s.mu.Lock()
		n += len(s.holders)
		s.mu.Unlock()
	}
	return n
}

// all is the names of the holders that are kept.
func (i *idleHolders) all() (ids []quota.HolderID) {
	for j := range i.shards {
		ids = append(ids, i.shards[j].find(func(string) bool { return true })...)
	}
	return ids
}

// old is the names of some holders that were kept for keepIdle. Each call looks at another part of all, so that within keepIdle each
// is looked at.
func (i *idleHolders) old(now time.Time) []quota.HolderID {
	const calls = int(keepIdle / SweepEvery)
	before := now.Add(-keepIdle).Sub(i.began)
	var ids []quota.HolderID
	for range (idleShards + calls - 1) / calls {
		s := &i.shards[i.turn.Add(1)%idleShards]
		ids = append(ids, s.find(func(text string) bool {
			since, _ := binary.Varint([]byte(text[:min(len(text), binary.MaxVarintLen64)]))
			return time.Duration(since) <= before
		})...)
	}
	return ids
}

// untold is the names of the holders of which the ledger was not told in that session.
func (i *idleHolders) untold(session uint64) (ids []quota.HolderID) {
	for j := range i.shards {
		ids = append(ids, i.shards[j].find(func(text string) bool {
			r := &reader{[]byte(text)}
			r.int()
			return uint64(r.int()) != session
		})...)
	}
	return ids
}

func (s *idleShard) find(want func(text string) bool) (ids []quota.HolderID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(s.holders)) {
		if want(s.holders[key]) {
			ids = append(ids, idOf(key))
		}
	}
	return ids
}

// putAwayLocked puts a holder away that is not used, unless a call is to be made for it or a request waits. Nothing is taken
// from it any more, and whoever still has it asks the dispenser for the one in use.
func (h *holder) putAwayLocked() {
	if !h.restsLocked() {
		return
	}
	d := h.d
	h.dead = true
	d.holders.Compute(h.id, func(at *holder, there bool) (*holder, xsync.ComputeOp) {
		if text, some := h.text(); some {
			d.idle.put(h.id, text)
		}
		return nil, xsync.DeleteOp
	})
}

// wake is the holder that was put away, or a new one.
func (d *Dispenser) wake(id quota.HolderID) *holder {
	h := newHolder(d, id)
	if text := d.idle.take(id); text != "" {
		h.fill(text)
	}
	return h
}

// text ends all that the holder has and writes it down: when, what the ledger knows, the leases, the rates whose period runs. It returns false if
// nothing is worth keeping.
func (h *holder) text() (string, bool) {
	d, now := h.d, h.d.now()
	var leases, rates writer
	nLeases, nRates := int64(0), int64(0)
	since := now.Add(keepTold - keepIdle) // it is not kept longer if there is nothing to give back
	for _, b := range h.all() {
		if !b.source.Load().Empty() {
			since = now
		}
		if s := b.source.Load(); leases.lease(b, s, s.Retire(), now) {
			nLeases++
		}
	}
	if all := h.rates.Load(); all != nil {
		for _, r := range *all {
			old := r.window.Swap(closed)
			if old == nil || old == closed {
				continue
			}
			if used := old.used.Swap(frozen); old.end > now.UnixNano() {
				rates.ints(int64(len(r.count)))
				rates.out = append(rates.out, r.count...)
				rates.ints(old.start, old.end, used, old.borrowed.Load(), old.asked.Load())
				nRates++
			}
		}
	}
	w := &writer{}
	w.time(d.idle.began, since)
	w.ints(int64(h.session), int64(h.last), nLeases)
	w.out = append(w.out, leases.out...)
	w.ints(nRates)
	w.out = append(w.out, rates.out...)
	return string(w.out), nLeases+nRates > 0
}

// fill fills a new holder with what text wrote.
func (h *holder) fill(text string) {
	d := h.d
	r := &reader{[]byte(text)}
	r.int() // when it was put away
	h.session, h.last = uint64(r.int()), uint64(r.int())
	for range r.int() {
		r.lease(d, h)
	}
	for range r.int() {
		n := r.int()
		share := newRate(h, string(r.in[:n]))
		r.in = r.in[n:]
		w := &window{start: r.int(), end: r.int()}
		w.used.Store(r.int())
		w.borrowed.Store(r.int())
		w.asked.Store(r.int())
		share.window.Store(w)
	}
}

// writer writes numbers as varints.
type writer struct{ out []byte }

func (w *writer) ints(numbers ...int64) {
	for _, n := range numbers {
		w.out = binary.AppendVarint(w.out, n)
	}
}

// never stands for the zero time.
const never = math.MinInt64

func (w *writer) time(began, t time.Time) {
	if t.IsZero() {
		w.ints(never)
		return
	}
	w.ints(int64(t.Sub(began)))
}

// lease writes a lease, unless it has nothing that the ledger does not know and could not have lost.
func (w *writer) lease(b *bucketLease, s *source, state holding.State, now time.Time) bool {
	d := b.h.d
	if state.Left == 0 && state.Spent == 0 && (b.reported == 0 || now.Sub(state.Asked) > keepTold) {
		return false
	}
	start, end := int64(never), int64(never)
	if !s.Period.Forever() {
		start, end = s.Period.Start.Unix(), s.Period.End.Unix()
	}
	w.ints(int64(d.idle.limits.numberOf(b.limit.Load())), start, end, state.Left, state.Spent, int64(state.Session),
		state.AskedUnder, state.Counted, state.Credited, state.Low, b.size, b.nodes, b.elsewhere, b.reported)
	w.time(d.idle.began, state.Asked)
	return true
}

// reader reads what a writer of this process wrote.
type reader struct{ in []byte }

func (r *reader) int() int64 {
	n, size := binary.Varint(r.in)
	r.in = r.in[size:]
	return n
}

func (r *reader) time(began time.Time) time.Time {
	n := r.int()
	if n == never {
		return time.Time{}
	}
	return began.Add(time.Duration(n))
}

func (r *reader) lease(d *Dispenser, h *holder) {
	l := d.idle.limits.limit(int(r.int()))
	var p quota.Period
	if start, end := r.int(), r.int(); start != never {
		p = quota.Period{Start: time.Unix(start, 0).UTC(), End: time.Unix(end, 0).UTC()}
	}
	b := newBucketLease(h, countOf(l), l, p)
	s := b.source.Load()
	state := holding.State{
		Left: r.int(), Spent: r.int(), Session: uint64(r.int()), AskedUnder: r.int(), Counted: r.int(), Credited: r.int(), Low: r.int(),
	}
	b.size, b.nodes, b.elsewhere, b.reported = r.int(), r.int(), r.int(), r.int()
	state.Asked = r.time(d.idle.began)
	s.Restart(state)
	b.taken = [2]int64{s.Taken(), s.Taken()}
}
