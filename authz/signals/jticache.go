package signals

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// jtiCacheSize bounds a generation of a jtiCache, in statements. Two full generations take about 10 MB.
const jtiCacheSize = 50_000

// jtiCache remembers which statements were acknowledged. It has two generations: when the current one is full or old it
// becomes the previous one, and the previous one is forgotten. So the latest statements are always remembered. A cache that
// prefers frequently used entries does not guarantee that. Forgetting a statement early does no harm: making its records again
// changes nothing.
type jtiCache struct {
	age time.Duration // of a generation

	mu                sync.Mutex
	current, previous map[[sha256.Size]byte]struct{}
	began             time.Time // when the current generation began
}

func newJTICache(age time.Duration) *jtiCache {
	return &jtiCache{age: age, current: make(map[[sha256.Size]byte]struct{})}
}

// statementKey identifies a statement by issuer and jti. The length of the issuer separates the two.
func statementKey(st *authz.Statement) [sha256.Size]byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(len(st.Issuer)))
	return sha256.Sum256(append(append(b, st.Issuer...), st.ID...))
}

// has reports whether a statement was acknowledged.
func (c *jtiCache) has(key [sha256.Size]byte, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hasLocked(key, now)
}

// add remembers a statement, and reports whether it is new.
func (c *jtiCache) add(key [sha256.Size]byte, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hasLocked(key, now) {
		return false
	}
	if len(c.current) >= jtiCacheSize {
		c.rotateLocked(now)
	}
	c.current[key] = struct{}{}
	return true
}

func (c *jtiCache) hasLocked(key [sha256.Size]byte, now time.Time) bool {
	if age := now.Sub(c.began); age >= c.age {
		c.rotateLocked(now)
		if age >= 2*c.age {
			c.rotateLocked(now)
		}
	}
	_, inCurrent := c.current[key]
	_, inPrevious := c.previous[key]
	return inCurrent || inPrevious
}

func (c *jtiCache) rotateLocked(now time.Time) {
	c.current, c.previous, c.began = make(map[[sha256.Size]byte]struct{}), c.current, now
}
