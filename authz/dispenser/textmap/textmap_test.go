package textmap_test

import (
	"fmt"
	"hash/maphash"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/textmap"
)

var seed = maphash.MakeSeed()

func hash(key string) uint64 { return maphash.String(seed, key) }

// TestMap_IsAMap puts and takes random texts, of keys some of which share a hash.
func TestMap_IsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m textmap.Map
		oracle := make(map[string]string)
		key := func() (string, uint64) {
			n := rapid.IntRange(0, 20).Draw(t, "key")
			key := fmt.Sprint("key ", n)
			return key, hash(fmt.Sprint(max(n, 3))) // the first ones share one
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, h := key()
				text := strings.Repeat(k, rapid.SampledFrom([]int{0, 1, 30, 200}).Draw(t, "size"))
				m.Put(h, []byte(k), []byte(text))
				oracle[k] = text
			},
			"take": func(t *rapid.T) {
				k, h := key()
				want, there := oracle[k]
				delete(oracle, k)
				if got, ok := m.Take(h, []byte(k), []byte("so far ")); string(got) != "so far "+want || ok != there {
					t.Fatalf("%q: %q, %v, want %q, %v", k, got, ok, want, there)
				}
			},
			"": func(t *rapid.T) {
				all := make(map[string]string)
				for k, text := range m.All() {
					all[string(k)] = string(text)
				}
				if !maps.Equal(all, oracle) || m.Len() != len(oracle) {
					t.Fatalf("it has %d: %q, want %q", m.Len(), all, oracle)
				}
				for n := range 21 {
					k := fmt.Sprint("key ", n)
					if _, there := oracle[k]; m.Has(hash(fmt.Sprint(max(n, 3))), []byte(k)) != there {
						t.Fatalf("%q: %v", k, !there)
					}
				}
			},
		})
	})
}

// TestMap_GapsAreClosed has texts come and go: the memory is at most twice theirs, and none when all are gone.
func TestMap_GapsAreClosed(t *testing.T) {
	const keys, rounds, size = 1000, 20, 100
	var m textmap.Map
	text := make([]byte, size)
	before := heap()
	for range rounds {
		for i := range keys {
			key := fmt.Sprint(i)
			m.Take(hash(key), []byte(key), nil)
			m.Put(hash(key), []byte(key), text)
		}
	}
	if used := heap() - before; used > 2*keys*(size+16) {
		t.Errorf("%d texts of %d bytes take %d", keys, size, used)
	}
	for i := range keys {
		key := fmt.Sprint(i)
		m.Take(hash(key), []byte(key), nil)
	}
	if used := heap() - before; used > keys*32 {
		t.Errorf("no texts take %d bytes", used)
	}
	runtime.KeepAlive(&m)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkMap takes texts out and puts them back, in a Map (on) and in a map of Go (off).
func BenchmarkMap(b *testing.B) {
	const entries, shards, size = 400_000, 128, 60
	keys, hashes := make([]string, entries), make([]uint64, entries)
	for i := range keys {
		keys[i] = fmt.Sprintf("account\x00key_%016d", i)
		hashes[i] = hash(keys[i])
	}
	turn := func(b *testing.B, put func(i int, text []byte), again func(i int)) {
		before, began := heap(), time.Now()
		runtime.GC()
		base := time.Since(began)
		for i := range entries {
			put(i, make([]byte, size))
		}
		bytes := heap() - before
		began = time.Now()
		runtime.GC()
		took := time.Since(began) - base
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			again(i * 7919 % entries)
		}
		b.ReportMetric(float64(took.Microseconds())/1000, "ms/collection")
		b.ReportMetric(float64(bytes)/entries, "B/entry")
	}
	b.Run("device=on", func(b *testing.B) {
		maps := make([]textmap.Map, shards)
		var room [128]byte
		put := func(i int, text []byte) { maps[hashes[i]%shards].Put(hashes[i], []byte(keys[i]), text) }
		turn(b, put, func(i int) {
			text, _ := maps[hashes[i]%shards].Take(hashes[i], []byte(keys[i]), room[:0])
			put(i, text)
		})
		runtime.KeepAlive(maps)
	})
	b.Run("device=off", func(b *testing.B) {
		maps := make([]map[string]string, shards)
		for i := range maps {
			maps[i] = make(map[string]string)
		}
		turn(b, func(i int, text []byte) { maps[hashes[i]%shards][strings.Clone(keys[i])] = string(text) }, func(i int) {
			m := maps[hashes[i]%shards]
			text := m[keys[i]]
			delete(m, keys[i])
			m[strings.Clone(keys[i])] = strings.Clone(text)
		})
		runtime.KeepAlive(maps)
	})
	runtime.KeepAlive(keys)
}
