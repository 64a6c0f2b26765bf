// Package digestset is a set of digests that keeps only the first eight bytes of each. A million take 20 MB, where whole ones
// would take 80. authz/decisions/004 has the measurements.
package digestset

import (
	"maps"
	"slices"
	"sync"
)

// Digest is a digest whose every byte is as good as random, such as SHA-256.
type Digest = [32]byte

// Set is a set of digests. Its zero value is empty. All methods may be called concurrently. It is spread over shards, each with
// a lock of its own, so that reads do not wait for each other or for a write elsewhere.
type Set struct{ shards [256]shard }

type shard struct {
	mu   sync.RWMutex
	have map[Beginning]struct{} // has no pointers, so that the garbage collector does not look into it
}

// Beginning is what is kept of a digest. As a uint64 it would take twice as much: a map aligns its entries.
type Beginning [8]byte

// Add adds a digest.
func (s *Set) Add(d Digest) { s.AddBeginning(Beginning(d[:])) }

// AddBeginning adds a digest that begins like that.
func (s *Set) AddBeginning(b Beginning) {
	sh := &s.shards[b[0]]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.have == nil {
		sh.have = make(map[Beginning]struct{})
	}
	sh.have[b] = struct{}{}
}

// MayHave returns false if the digest was never added. If it returns true, the digest or another one that begins alike was
// added: the caller looks it up elsewhere. To find a text whose digest begins like one of a million takes 2^44 tries, and gains
// that look-up.
func (s *Set) MayHave(d Digest) bool {
	sh := &s.shards[d[0]]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	_, ok := sh.have[Beginning(d[:])]
	return ok
}

// Each calls each for the digests in the set, in no order. Those that are added meanwhile may be missed. No lock is held.
func (s *Set) Each(each func(Beginning) error) error {
	for i := range s.shards {
		for _, b := range s.shards[i].all() {
			if err := each(b); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *shard) all() []Beginning {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Keys(s.have))
}
