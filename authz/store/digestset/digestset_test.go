package digestset_test

import (
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz/store/digestset"
)

// set is what both can do.
type set interface {
	Add(digestset.Digest)
	MayHave(digestset.Digest) bool
}

// plain is the readable version: a map of whole digests under one lock.
type plain struct {
	mu   sync.RWMutex
	have map[digestset.Digest]struct{}
}

func newPlain() *plain { return &plain{have: make(map[digestset.Digest]struct{})} }

func (p *plain) Add(d digestset.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.have[d] = struct{}{}
}

func (p *plain) MayHave(d digestset.Digest) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.have[d]
	return ok
}

// TestSet_HasWhatAMapHas adds random digests to a set and to a map. The set has all that the map has, and of the others only
// those that begin like one of the map's.
func TestSet_HasWhatAMapHas(t *testing.T) {
	digests := rapid.Custom(func(t *rapid.T) (d digestset.Digest) { // so few that they meet, or begin alike
		d[0], d[7] = byte(rapid.IntRange(0, 2).Draw(t, "shard")), byte(rapid.IntRange(0, 2).Draw(t, "beginning"))
		d[31] = byte(rapid.IntRange(0, 2).Draw(t, "end"))
		return d
	})
	rapid.Check(t, func(t *rapid.T) {
		var made digestset.Set
		oracle, beginnings := newPlain(), make(map[[8]byte]bool)
		for _, d := range rapid.SliceOf(digests).Draw(t, "added") {
			made.Add(d)
			oracle.Add(d)
			beginnings[[8]byte(d[:])] = true
		}
		d := digests.Draw(t, "another")
		if got := made.MayHave(d); oracle.MayHave(d) && !got || got != beginnings[[8]byte(d[:])] {
			t.Fatalf("%x: %v", d, got)
		}
	})
}

func TestSet_ConcurrentUse(t *testing.T) {
	var made digestset.Set
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 1000 {
				d := digest(worker*1000 + i)
				if made.Add(d); !made.MayHave(d) || made.MayHave(digest(1_000_000+i)) {
					t.Errorf("%x: %v", d, made.MayHave(d))
				}
			}
		})
	}
	wg.Wait()
}

func digest(i int) digestset.Digest {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

// BenchmarkSet looks for digests that are not there among a million, as when a caller guesses keys.
func BenchmarkSet(b *testing.B) {
	const size = 1_000_000
	absent := make([]digestset.Digest, size/4) // so many that the processor's cache does not hold all that they meet
	for i := range absent {
		absent[i] = digest(size + i)
	}
	for _, c := range []struct {
		device string
		new    func() set
	}{
		{"on", func() set { return new(digestset.Set) }},
		{"off", func() set { return newPlain() }},
	} {
		before := heap()
		made := c.new()
		for i := range size {
			made.Add(digest(i))
		}
		bytes := float64(heap()-before) / size
		b.Run("device="+c.device, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if made.MayHave(absent[i%len(absent)]) {
					b.Fatal("a digest is there that was never added")
				}
			}
			b.ReportMetric(bytes, "B/digest")
		})
		runtime.KeepAlive(made)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
