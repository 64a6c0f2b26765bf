package dispenser

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/holding"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/textmap"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// idleHolders is what the node has of callers who did not come lately: a hundred bytes for each in a textmap.Map, where a holder in
// use is a dozen objects that the garbage collector has to visit. A caller who comes again finds the lease as it was, and the
// ledger is not asked. The zero value is empty. Its methods may be called concurrently.
type idleHolders struct {
	began  time.Time // instants are kept as the time since then
	limits table[limitKey, *authz.Limit]
	counts table[string, string] // of rates
	units  unitCount             // that are left in leases
	shards [idleShards]idleShard
	turn   atomic.Uint32 // of the sweep
}

type idleShard struct {
	mu      sync.Mutex
	holders textmap.Map // by idleKey
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

// table numbers limits or counts, so that what is kept need not have them. It grows with each that plans ever had, but not with a
// plan that is loaded again.
type table[K comparable, V any] struct {
	mu     sync.Mutex
	number map[K]int
	all    []V
}

// limitKey is a limit with the name of its zone: each loading makes a new zone.
type limitKey struct {
	authz.Limit
	zone string
}

func keyOf(l *authz.Limit) limitKey {
	key := limitKey{Limit: *l, zone: l.Zone.String()} // of nil it is UTC
	key.Zone = nil
	return key
}

func (t *table[K, V]) numberOf(key K, value V) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.number[key]
	if !ok {
		if t.number == nil {
			t.number = make(map[K]int)
		}
		n = len(t.all)
		t.number[key], t.all = n, append(t.all, value)
	}
	return int64(n)
}

func (t *table[K, V]) at(n int64) V {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[n]
}

// idleKey is the name of a holder as one text, and a hash of it that is the same in each process: a simulation can be repeated.
func idleKey(id quota.HolderID, room []byte) (key []byte, hash uint64) {
	key = append(append(append(room, id.Per...), 0), id.Holder...)
	hash = 14695981039346656037 // FNV-1a
	for _, b := range key {
		hash = (hash ^ uint64(b)) * 1099511628211
	}
	return key, hash
}

func idOf(key []byte) quota.HolderID {
	per, holder, _ := strings.Cut(string(key), "\x00")
	return quota.HolderID{Per: authz.Per(per), Holder: holder}
}

// usualKey is room for most keys.
type usualKey [64]byte

// shard is where a holder whose key has that hash is kept.
func (i *idleHolders) shard(hash uint64) *idleShard { return &i.shards[hash%idleShards] }

func (i *idleHolders) put(id quota.HolderID, text []byte) {
	var room usualKey
	key, hash := idleKey(id, room[:0])
	s := i.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders.Put(hash, key, text)
}

// take takes out what was kept and appends it to room. It returns false if there was nothing.
func (i *idleHolders) take(id quota.HolderID, out []byte) ([]byte, bool) {
	var room usualKey
	key, hash := idleKey(id, room[:0])
	s := i.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holders.Take(hash, key, out)
}

func (i *idleHolders) has(id quota.HolderID) bool {
	var room usualKey
	key, hash := idleKey(id, room[:0])
	s := i.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holders.Has(hash, key)
}

func (i *idleHolders) size() (n int) {
	for j := range i.shards {
		s := &i.shards[j]
		s.mu.Lock()
		n += s.holders.Len()
		s.mu.Unlock()
	}
	return n
}

// all is the names of the holders that are kept.
func (i *idleHolders) all() (ids []quota.HolderID) {
	for j := range i.shards {
		ids = append(ids, i.shards[j].find(func([]byte) bool { return true })...)
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
		ids = append(ids, s.find(func(text []byte) bool {
			since, _ := binary.Varint(text)
			return time.Duration(since) <= before
		})...)
	}
	return ids
}

// untold is the names of the holders of which the ledger was not told in that session.
func (i *idleHolders) untold(session uint64) (ids []quota.HolderID) {
	for j := range i.shards {
		ids = append(ids, i.shards[j].find(func(text []byte) bool {
			r := &reader{text}
			r.int()
			return uint64(r.int()) != session
		})...)
	}
	return ids
}

// find is the names of the holders whose text is wanted, in their order.
func (s *idleShard) find(want func(text []byte) bool) (ids []quota.HolderID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, text := range s.holders.All() {
		if want(text) {
			ids = append(ids, idOf(key))
		}
	}
	slices.SortFunc(ids, func(a, b quota.HolderID) int {
		return cmp.Or(cmp.Compare(a.Per, b.Per), cmp.Compare(a.Holder, b.Holder))
	})
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
		if text := h.text(); text != nil {
			d.idle.put(h.id, text)
		}
		return nil, xsync.DeleteOp
	})
}

// wake is the holder that was put away, or a new one.
func (d *Dispenser) wake(id quota.HolderID) *holder {
	h := newHolder(d, id)
	var room usualText
	if text, ok := d.idle.take(id, room[:0]); ok {
		h.fill(text)
	}
	return h
}

// usualText is room for most texts.
type usualText [128]byte

// What follows in a text.
const (
	nothing = iota
	aLease
	aRate
)

// text ends all that the holder has and writes it down: when, what the ledger knows, the leases, the rates whose period runs. It is
// nil if nothing is worth keeping.
func (h *holder) text() []byte {
	d, now := h.d, h.d.now()
	since := now.Add(keepTold - keepIdle) // it is not kept longer if there is nothing to give back
	for b := h.leases.Load(); b != nil; b = b.next {
		if !b.source.Load().Empty() {
			since = now
		}
	}
	w := &writer{make([]byte, 0, len(usualText{}))}
	w.time(d.idle.began, since)
	w.ints(int64(h.session), int64(h.last))
	head := len(w.out)
	for b := h.leases.Load(); b != nil; b = b.next {
		s := b.source.Load()
		w.lease(b, s, s.Retire(), now)
	}
	for r := h.rates.Load(); r != nil; r = r.next {
		if old := r.window.Swap(closed); old != closed {
			w.rate(r, old, old.used.Swap(frozen), now)
		}
	}
	if len(w.out) == head {
		return nil
	}
	w.ints(nothing)
	return w.out
}

// fill fills a new holder with what text wrote.
func (h *holder) fill(text []byte) {
	r := &reader{text}
	r.int() // when it was put away
	h.session, h.last = uint64(r.int()), uint64(r.int())
	for {
		switch r.int() {
		case aLease:
			r.lease(h)
		case aRate:
			r.rate(h)
		default:
			return
		}
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

// period writes a period, which begins and ends with a second.
func (w *writer) period(p quota.Period) {
	if p.Forever() {
		w.ints(0)
		return
	}
	w.ints(int64(p.End.Sub(p.Start)/time.Second), p.Start.Unix())
}

// lease writes a lease, unless it has nothing that the ledger does not know and could not have lost.
func (w *writer) lease(b *bucketLease, s *source, state holding.State, now time.Time) {
	if state.Left == 0 && state.Spent == 0 && (b.reported == 0 || now.Sub(state.Asked) > keepTold) {
		return
	}
	idle, l := &b.h.d.idle, b.limit.Load()
	idle.units.add(l.Name, state.Left)
	w.ints(aLease, idle.limits.numberOf(keyOf(l), l))
	w.period(s.Period)
	w.ints(state.Left, state.Spent, int64(state.Session), state.AskedUnder, state.Counted, state.Credited, state.Low,
		b.size, b.nodes, b.elsewhere, b.reported)
	w.time(idle.began, state.Asked)
}

// rate writes a rate of which that much is used, unless its period is over.
func (w *writer) rate(r *rate, at *window, used int64, now time.Time) {
	if at.end <= now.UnixNano() {
		return
	}
	w.ints(aRate, r.h.d.idle.counts.numberOf(r.count, r.count))
	w.period(quota.Period{Start: time.Unix(0, at.start), End: time.Unix(0, at.end)})
	w.ints(used, at.borrowed.Load(), at.asked.Load())
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

func (r *reader) period() quota.Period {
	seconds := r.int()
	if seconds == 0 {
		return quota.Period{}
	}
	start := time.Unix(r.int(), 0).UTC()
	return quota.Period{Start: start, End: start.Add(time.Duration(seconds) * time.Second)}
}

func (r *reader) lease(h *holder) {
	d := h.d
	l := d.idle.limits.at(r.int())
	b := newBucketLease(h, countOf(l), l, r.period())
	s := b.source.Load()
	state := holding.State{
		Left: r.int(), Spent: r.int(), Session: uint64(r.int()), AskedUnder: r.int(), Counted: r.int(), Credited: r.int(), Low: r.int(),
	}
	d.idle.units.add(l.Name, -state.Left)
	b.size, b.nodes, b.elsewhere, b.reported = r.int(), r.int(), r.int(), r.int()
	state.Asked = r.time(d.idle.began)
	s.Restart(state)
	b.taken = [2]int64{s.Taken(), s.Taken()}
}

func (r *reader) rate(h *holder) {
	w := &newRate(h, h.d.idle.counts.at(r.int()), r.period()).first
	w.used.Store(r.int())
	w.borrowed.Store(r.int())
	w.asked.Store(r.int())
}
