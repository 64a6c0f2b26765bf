package recordcache_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz/store/recordcache"
)

var seed = maphash.MakeSeed()

func hash(key string) uint64 { return maphash.String(seed, key) }

// TestCache_IsAForgetfulMap puts random records in a small cache and in a map. The cache has what the map has, or nothing.
func TestCache_IsAForgetfulMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, oracle := recordcache.New(0), make(map[string]string)
		shared := rapid.Uint64().Draw(t, "shared hash")
		key := func() (string, uint64) {
			n := rapid.IntRange(0, 20).Draw(t, "key")
			if key := fmt.Sprint("key ", n); n > 2 {
				return key, hash(key)&^63 | 1 // all in one shard
			}
			return fmt.Sprint("key ", n), shared // as if their hashes were the same
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, h := key()
				size := rapid.SampledFrom([]int{0, 1, 300, 9000, recordcache.MaxEntry - len(k), recordcache.MaxEntry, 100_000}).Draw(t, "size")
				record := bytes.Repeat([]byte{byte(rapid.IntRange(0, 255).Draw(t, "byte"))}, size)
				c.Put(h, []byte(k), record, nil)
				oracle[k] = string(record)
				got, ok := c.Get(h, []byte(k))
				if fits := len(k)+size <= recordcache.MaxEntry; ok != fits || ok && got != string(record) {
					t.Fatalf("%q: %d bytes, %v after %d were put", k, len(got), ok, size)
				}
			},
			"refused": func(t *rapid.T) {
				k, h := key()
				c.Put(h, []byte(k), []byte("late"), func() bool { return false })
			},
			"get": func(t *rapid.T) {
				k, h := key()
				got, ok := c.Get(h, []byte(k))
				if want, there := oracle[k]; ok && (!there || got != want) || c.Has(h, k) != ok {
					t.Fatalf("%q: %d bytes, %v", k, len(got), ok)
				}
			},
		})
	})
}

// TestCache_KeepsTheLatest fills a cache several times over: it holds as much as it should, the records that were put last.
func TestCache_KeepsTheLatest(t *testing.T) {
	const limit, size, many = 8 << 20, 100, 200_000
	c := recordcache.New(limit)
	record := make([]byte, size)
	key := func(i int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }
	before := heap()
	for i := range many {
		binary.BigEndian.PutUint64(record, uint64(i))
		c.Put(hash(string(key(i))), key(i), record, nil)
	}
	if used := heap() - before; used > limit {
		t.Errorf("it takes %d bytes, want at most %d", used, limit)
	}
	held := 0
	for i := range many {
		got, ok := c.Get(hash(string(key(i))), key(i))
		if ok {
			held++
		}
		if ok && binary.BigEndian.Uint64([]byte(got)) != uint64(i) || !ok && i >= many-many/8 {
			t.Fatalf("record %d of %d: %x, %v", i, many, got, ok)
		}
	}
	if held*size < limit/2 {
		t.Errorf("it holds %d records of %d bytes", held, size)
	}
}

func TestCache_ConcurrentUse(t *testing.T) {
	c := recordcache.New(0)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 20_000 {
				key := fmt.Sprint("key ", i%500)
				if worker%2 == 0 {
					c.Put(hash(key), []byte(key), bytes.Repeat([]byte(key), 30), nil)
				} else if got, ok := c.Get(hash(key), []byte(key)); ok && got != string(bytes.Repeat([]byte(key), 30)) {
					t.Errorf("%q: %q", key, got)
				}
			}
		})
	}
	wg.Wait()
}

// record is something like a decoded key.
type record struct {
	id, name, account, plan, environment string
	scopes                               []string
	times                                [5]time.Time
	meta                                 map[string]any
}

// BenchmarkCache holds 200,000 records of 130 bytes, in a cache and as decoded values in another library's.
func BenchmarkCache(b *testing.B) {
	const size = 200_000
	keys := make([][32]byte, size)
	for i := range keys {
		h := maphash.Comparable(seed, i)
		for at := range 4 {
			binary.LittleEndian.PutUint64(keys[i][at*8:], h*uint64(2*at+1))
		}
	}
	at := func(i int) *[32]byte { return &keys[i*7919%size] }
	for _, c := range []struct {
		device string
		fill   func() (get func(i int) bool)
	}{
		{"on", func() func(int) bool {
			c := recordcache.New(64 << 20)
			for i := range keys {
				c.Put(binary.LittleEndian.Uint64(keys[i][8:]), keys[i][:], make([]byte, 130), nil)
			}
			return func(i int) bool {
				_, ok := c.Get(binary.LittleEndian.Uint64(at(i)[8:]), at(i)[:])
				return ok
			}
		}},
		{"off", func() func(int) bool {
			c := otter.Must(&otter.Options[[32]byte, *record]{MaximumSize: size})
			for i := range keys {
				text := string(make([]byte, 100))
				c.Set(keys[i], &record{
					id: text[:20], name: text[20:40], account: text[40:60], plan: text[60:80], environment: text[80:], times: [5]time.Time{},
					scopes: []string{text[:4], text[4:8]}, meta: map[string]any{text[:4]: text[4:8]},
				})
			}
			return func(i int) bool {
				_, ok := c.GetIfPresent(*at(i))
				return ok
			}
		}},
	} {
		before, had := heap(), objects()
		get := c.fill()
		used, made := float64(heap()-before)/size, float64(objects()-had)/size
		began := time.Now()
		runtime.GC()
		gc := time.Since(began)
		b.Run("device="+c.device, func(b *testing.B) {
			missed := 0
			for i := 0; b.Loop(); i++ {
				if !get(i % size) {
					missed++
				}
			}
			b.ReportMetric(used, "B/record")
			b.ReportMetric(made, "objects/record")
			b.ReportMetric(gc.Seconds()*1e3, "ms/gc")
			b.ReportMetric(float64(missed)/float64(b.N), "missed/op")
		})
		runtime.KeepAlive(get)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func objects() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapObjects)
}

// TestCache_Each visits what Get finds, and nothing else, in a cache that has forgotten some.
func TestCache_Each(t *testing.T) {
	c := recordcache.New(0)
	for i := range 50_000 {
		key := []byte(fmt.Sprint("key ", i%30_000)) // some are put twice
		c.Put(hash(string(key)), key, []byte(fmt.Sprint("record ", i)), nil)
	}
	forgotten := []byte("key 19999")
	c.Put(hash(string(forgotten)), forgotten, make([]byte, recordcache.MaxEntry), nil)
	seen := make(map[string]string)
	if err := c.Each(func(key, record []byte) error {
		seen[string(key)] = string(record)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	found := 0
	for i := range 30_000 {
		key := fmt.Sprint("key ", i)
		record, ok := c.Get(hash(key), []byte(key))
		if ok {
			found++
		}
		if seen[key] != record {
			t.Errorf("%s: %q was visited, and %q is held", key, seen[key], record)
		}
	}
	if found != len(seen) || found == 0 || found == 30_000 {
		t.Errorf("%d visited, %d held", len(seen), found)
	}
}
