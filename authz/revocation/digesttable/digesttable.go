// Package digesttable is a map that keeps a digest of each key in place of the key. A million keys of three strings each would
// take 260 MB, in objects that the garbage collector follows one by one; their digests take 100 MB and hold no pointers.
// authz/decisions/005 has the measurements.
package digesttable

import (
	"hash/maphash"
	"sync"
)

// Table is a map from K to V. Use New. All methods may be called concurrently.
//
// It is spread over shards, each with a lock of its own, so that a read waits for one write to its own shard at most.
//
// Two keys with the same digest would be taken for each other. Digests have 128 bits and their seeds are random, of this
// process alone, and never shown, so they cannot be searched for: a key that is absent is taken for one of a million with a
// probability of 2^-108, and two of the million for each other with one of 2^-89.
type Table[K comparable, V any] struct {
	seeds  [2]maphash.Seed
	shards [256]shard[V]
}

type digest struct{ a, b uint64 }

type shard[V any] struct {
	mu     sync.RWMutex
	values map[digest]V
}

// New makes an empty table.
func New[K comparable, V any]() *Table[K, V] {
	t := &Table[K, V]{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	for i := range t.shards {
		t.shards[i].values = make(map[digest]V)
	}
	return t
}

func (t *Table[K, V]) find(k K) (digest, *shard[V]) {
	d := digest{maphash.Comparable(t.seeds[0], k), maphash.Comparable(t.seeds[1], k)}
	return d, &t.shards[d.a>>56]
}

// Get returns the value of a key, and whether it has one.
func (t *Table[K, V]) Get(k K) (V, bool) {
	d, s := t.find(k)
	s.mu.RLock()
	v, ok := s.values[d]
	s.mu.RUnlock()
	return v, ok
}

// Update sets the value of a key to what change makes of the value that it has. No other write to the key comes between.
func (t *Table[K, V]) Update(k K, change func(old V, found bool) V) {
	d, s := t.find(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, found := s.values[d]
	s.values[d] = change(old, found)
}

// Prune removes the values that are expired, and gives back their memory: a Go map never shrinks, so what is left moves to a
// new one.
func (t *Table[K, V]) Prune(expired func(V) bool) {
	for i := range t.shards {
		t.shards[i].prune(expired)
	}
}

func (s *shard[V]) prune(expired func(V) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := 0
	for _, v := range s.values {
		if !expired(v) {
			left++
		}
	}
	if left == len(s.values) {
		return
	}
	kept := make(map[digest]V, left)
	for d, v := range s.values {
		if !expired(v) {
			kept[d] = v
		}
	}
	s.values = kept
}

// Len is the number of values.
func (t *Table[K, V]) Len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		n += len(s.values)
		s.mu.RUnlock()
	}
	return n
}
