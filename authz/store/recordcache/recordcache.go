// Package recordcache is a cache of records in memory that has no pointers, so that the garbage collector does not look into it.
// authz/decisions/018 has the measurements.
package recordcache

import (
	"bytes"
	"encoding/binary"
	"sync"
)

// Cache holds the records that were put last, up to a number of bytes. All methods may be called concurrently. It is spread over
// shards, each with a lock of its own, so that reads do not wait for each other or for a write elsewhere.
type Cache struct{ shards [shardCount]shard }

const (
	shardCount = 64
	// segmentSize is how much memory is taken, and later forgotten, at a time.
	segmentSize = 32 << 10
)

// MaxEntry is the longest key and record, together, that a Cache holds.
const MaxEntry = segmentSize - headSize

// shard keeps its entries one after the other in segments. When all segments are full, the oldest is emptied and filled again.
type shard struct {
	mu       sync.RWMutex
	at       map[uint32]uint32 // tag of an entry -> its position
	segments [][]byte
	limit    int // of segments
	filling  int // the segment that entries are added to
}

// An entry begins with its tag, and the sizes of its key and its record.
const (
	entryKey    = 4
	entryRecord = 8
	headSize    = 12
)

// New makes a cache of at most so many bytes, of which a sixteenth to a quarter is for finding the rest. It takes them as they
// are needed.
func New(limit int) *Cache {
	c := new(Cache)
	for i := range c.shards {
		c.shards[i].limit = max(limit/shardCount*4/5/segmentSize, 2)
	}
	return c
}

// Get returns the record of a key, whose hash is given too. The hash must be as good as random.
func (c *Cache) Get(hash uint64, key []byte) (record string, ok bool) {
	sh, tag := c.find(hash)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	at, ok := sh.at[tag]
	if !ok {
		return "", false
	}
	k, r := sh.entry(at)
	if string(k) != string(key) {
		return "", false
	}
	return string(r), true
}

// Has reports whether Get would find the record of a key.
func (c *Cache) Has(hash uint64, key string) bool {
	sh, tag := c.find(hash)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	at, ok := sh.at[tag]
	if !ok {
		return false
	}
	k, _ := sh.entry(at)
	return string(k) == key
}

// Each calls each with the keys and records that are held, those of a shard in the order in which they were put. What is put
// meanwhile may be missed. No lock is held, but each must not keep what it gets.
func (c *Cache) Each(each func(key, record []byte) error) error {
	for i := range c.shards {
		for _, e := range c.shards[i].all() {
			if err := each(e.key, e.record); err != nil {
				return err
			}
		}
	}
	return nil
}

// Put sets the record of a key, unless still is given and returns false: it is asked under the lock. A record that is too long is
// forgotten instead. Of two keys with the same hash only the last is held.
func (c *Cache) Put(hash uint64, key, record []byte, still func() bool) {
	sh, tag := c.find(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if still != nil && !still() {
		return
	}
	if len(key)+len(record) > MaxEntry {
		delete(sh.at, tag)
		return
	}
	if sh.at == nil {
		sh.at = make(map[uint32]uint32)
	}
	sh.at[tag] = sh.add(tag, key, record)
}

func (c *Cache) find(hash uint64) (*shard, uint32) {
	return &c.shards[hash%shardCount], uint32(hash >> 32)
}

// entry returns the key and the record at a position.
func (s *shard) entry(at uint32) (key, record []byte) {
	b := s.segments[at/segmentSize][at%segmentSize:]
	n, m := binary.NativeEndian.Uint32(b[entryKey:]), binary.NativeEndian.Uint32(b[entryRecord:])
	return b[headSize:][:n], b[headSize:][n:][:m]
}

type entry struct{ key, record []byte }

// all returns copies of the entries, from the oldest segment on.
func (s *shard) all() []entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []entry
	for i := range s.segments {
		n := (s.filling + 1 + i) % len(s.segments)
		for b, at := s.segments[n], 0; at < len(b); {
			key, record := s.entry(uint32(n*segmentSize + at))
			position, ok := s.at[binary.NativeEndian.Uint32(b[at:])]
			if ok && int(position) == n*segmentSize+at { // else it was put again, or forgotten, since
				out = append(out, entry{bytes.Clone(key), bytes.Clone(record)})
			}
			at += headSize + len(key) + len(record)
		}
	}
	return out
}

// add writes an entry and returns its position.
func (s *shard) add(tag uint32, key, record []byte) uint32 {
	size := headSize + len(key) + len(record)
	if len(s.segments) == 0 || len(s.segments[s.filling])+size > segmentSize {
		s.next()
	}
	b := s.segments[s.filling]
	at := s.filling*segmentSize + len(b)
	b = binary.NativeEndian.AppendUint32(b, tag)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(key)))
	b = binary.NativeEndian.AppendUint32(b, uint32(len(record)))
	s.segments[s.filling] = append(append(b, key...), record...)
	return uint32(at)
}

// next takes a new segment, or empties the oldest.
func (s *shard) next() {
	if len(s.segments) < s.limit {
		var b []byte // the first one grows as it is filled: most servers have few callers
		if s.filling = len(s.segments); s.filling > 0 {
			b = make([]byte, 0, segmentSize)
		}
		s.segments = append(s.segments, b)
		return
	}
	s.filling = (s.filling + 1) % s.limit
	b := s.segments[s.filling]
	for at := 0; at < len(b); {
		tag := binary.NativeEndian.Uint32(b[at:])
		if position, ok := s.at[tag]; ok && int(position) == s.filling*segmentSize+at { // else it was put again since
			delete(s.at, tag)
		}
		at += headSize + int(binary.NativeEndian.Uint32(b[at+entryKey:])) + int(binary.NativeEndian.Uint32(b[at+entryRecord:]))
	}
	s.segments[s.filling] = b[:0]
}
