package verdictcache

import (
	"hash/maphash"

	"github.com/maypok86/otter/v2"
	"github.com/puzpuzpuz/xsync/v4"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

const (
	// MaxBytes is the most memory that cached verdicts take, by estimate.
	MaxBytes = 64 << 20
	// MaxVerdict is the size in bytes of the largest verdict that is cached, with its key.
	MaxVerdict = 64 << 10

	// weightBytes is about the size of a small verdict.
	weightBytes = 1 << 10
)

// Cache keeps verdicts by a key: see package input. The caller ensures that an equal key gets an equal verdict. The cache
// ends with the revision of the policy. It is safe for concurrent use.
//
// It is bounded in bytes, because callers influence the size of verdicts. It keeps verdicts that are used often: many different
// requests do not evict them.
type Cache struct {
	seeds    [2]maphash.Seed
	verdicts *otter.Cache[digest, *entry]

	hits, misses, bypasses *xsync.Counter
}

// digest finds an entry. Get compares the whole key as well.
type digest [2]uint64

type entry struct {
	key     string
	verdict authz.Verdict
	size    int // in bytes, with the key
}

// New returns a cache of at most size verdicts and MaxBytes.
func New(size int) *Cache {
	return &Cache{
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		verdicts: otter.Must(&otter.Options[digest, *entry]{
			// Entries are counted in weights and not in bytes, because otter keeps a counter for every unit of its maximum.
			MaximumWeight: MaxBytes / weightBytes,
			// The smallest weight is such that there are never more than size entries.
			Weigher: func(_ digest, e *entry) uint32 {
				return uint32(max((e.size+weightBytes-1)/weightBytes, MaxBytes/weightBytes/size))
			},
		}),
		hits: xsync.NewCounter(), misses: xsync.NewCounter(), bypasses: xsync.NewCounter(),
	}
}

func (c *Cache) digest(key []byte) digest {
	return digest{maphash.Bytes(c.seeds[0], key), maphash.Bytes(c.seeds[1], key)}
}

// Get returns the verdict for a key. The caller must not change it.
func (c *Cache) Get(key []byte) (authz.Verdict, bool) {
	e, ok := c.verdicts.GetIfPresent(c.digest(key))
	if !ok || e.key != string(key) {
		c.misses.Inc()
		return authz.Verdict{}, false
	}
	c.hits.Inc()
	return e.verdict, true
}

// Put keeps a copy of a verdict, unless it is larger than MaxVerdict.
func (c *Cache) Put(key []byte, v authz.Verdict) {
	var copied copier
	e := &entry{key: string(key), verdict: copied.verdict(v)}
	if e.size = copied.size + len(e.key); e.size > MaxVerdict {
		c.Bypass()
		return
	}
	c.verdicts.Set(c.digest(key), e)
}

// Bypass counts a decision that is not cached.
func (c *Cache) Bypass() { c.bypasses.Inc() }

// Stats has counters since the cache was made, and the number of its verdicts. Bypasses are decisions that were not cached: the
// policy called a function whose result may change, or its input was too large for a key.
type Stats struct {
	Hits, Misses, Bypasses int64
	Size                   int
}

// Stats reads the counters.
func (c *Cache) Stats() Stats {
	return Stats{Hits: c.hits.Value(), Misses: c.misses.Value(), Bypasses: c.bypasses.Value(), Size: c.verdicts.EstimatedSize()}
}
