package digesttable

import (
	"fmt"
	"maps"
	"runtime"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// name is a key as the records of revocations have it.
type name struct{ kind, issuer, value string }

// table is what Table does; plain does the same with an ordinary map.
type table interface {
	Get(k name) (int64, bool)
	Update(k name, change func(old int64, found bool) int64)
	Prune(expired func(int64) bool)
	Len() int
}

var _ table = (*Table[name, int64])(nil)

// plain is the readable version: a map that keeps its keys, under one lock.
type plain struct {
	mu     sync.RWMutex
	values map[name]int64
}

func newPlain() *plain { return &plain{values: make(map[name]int64)} }

func (p *plain) Get(k name) (int64, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	v, ok := p.values[k]
	return v, ok
}

func (p *plain) Update(k name, change func(int64, bool) int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, found := p.values[k]
	p.values[k] = change(old, found)
}

func (p *plain) Prune(expired func(int64) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.values, func(_ name, v int64) bool { return expired(v) })
}

func (p *plain) Len() int { return len(p.values) }

// fewNames are so few that random operations meet them, and some differ only in where one string ends and the next begins.
var fewNames = rapid.Custom(func(t *rapid.T) name {
	part := func(what string) string { return rapid.SampledFrom([]string{"", "a", "b", "ab"}).Draw(t, what) }
	return name{part("kind"), part("issuer"), part("value")}
})

// TestTable_DoesWhatAMapDoes does the same to a table and to a map and compares them.
func TestTable_DoesWhatAMapDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tables := []table{New[name, int64](), newPlain()}
		same := func(what string, ask func(table) string) {
			if got, want := ask(tables[0]), ask(tables[1]); got != want {
				t.Fatalf("%s: %s, want %s", what, got, want)
			}
		}
		var used []name
		for range rapid.IntRange(0, 60).Draw(t, "operations") {
			k, n := fewNames.Draw(t, "name"), rapid.Int64Range(0, 9).Draw(t, "n")
			used = append(used, k)
			switch rapid.IntRange(0, 9).Draw(t, "operation") {
			case 0:
				for _, table := range tables {
					table.Prune(func(v int64) bool { return v < n })
				}
			default:
				same("the old value", func(table table) (was string) {
					table.Update(k, func(old int64, found bool) int64 {
						was = fmt.Sprint(old, found)
						return max(old, n)
					})
					return was
				})
			}
			same("the number of values", func(table table) string { return fmt.Sprint(table.Len()) })
		}
		for _, k := range append(used, fewNames.Draw(t, "another")) {
			same(fmt.Sprintf("the value of %q", k), func(table table) string {
				v, found := table.Get(k)
				return fmt.Sprint(v, found)
			})
		}
	})
}

// TestTable_ConcurrentUse counts up, reads and prunes at once: no update is lost, and no value that stays is ever missing.
func TestTable_ConcurrentUse(t *testing.T) {
	const names, writers, rounds = 500, 4, 20
	tab := New[int, int64]()
	for i := range names {
		tab.Update(i, func(int64, bool) int64 { return 1 })
	}
	var work, prune sync.WaitGroup
	done := make(chan struct{})
	prune.Go(func() {
		for n := names; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			tab.Update(names+n%1000, func(int64, bool) int64 { return -1 })
			tab.Prune(func(v int64) bool { return v < 0 })
		}
	})
	for range writers {
		work.Go(func() {
			for range rounds {
				for i := range names {
					tab.Update(i, func(old int64, _ bool) int64 { return old + 1 })
					if v, ok := tab.Get(i); !ok || v < 2 {
						t.Errorf("value %d of name %d, found %v", v, i, ok)
						return
					}
				}
			}
		})
	}
	work.Wait()
	close(done)
	prune.Wait()
	tab.Prune(func(v int64) bool { return v < 0 })
	if tab.Len() != names {
		t.Errorf("%d values, want %d", tab.Len(), names)
	}
	for i := range names {
		if v, _ := tab.Get(i); v != 1+writers*rounds {
			t.Fatalf("name %d was counted to %d", i, v)
		}
	}
}

// BenchmarkTable looks up the eight names of a token, of which none is there, among a million.
func BenchmarkTable(b *testing.B) {
	const size = 1_000_000
	const issuer = "https://issuer.example/realms/main"
	for _, c := range []struct {
		device string
		new    func() table
	}{
		{"on", func() table { return New[name, int64]() }},
		{"off", func() table { return newPlain() }},
	} {
		before := heap()
		tab := c.new()
		for i := range size { // an issuer that is read from a store is a string of its own in each record
			tab.Update(name{"jti", string([]byte(issuer)), value(i)}, func(int64, bool) int64 { return 1 })
		}
		bytes := float64(heap()-before) / size
		absent := make([]string, size/4) // so many that the processor's cache does not hold them all
		for i := range absent {
			absent[i] = value(size + i)
		}
		b.Run("device="+c.device, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				id := absent[i%len(absent)]
				for _, k := range [...]name{
					{"token", "", id}, {"jti", issuer, id}, {"sid", issuer, id}, {"sub", issuer, id}, {"suspension", issuer, id},
					{"client", issuer, "mobile-app"}, {"signing_key", issuer, "2024-05-a"}, {"account", "", "acme"},
				} {
					if _, ok := tab.Get(k); ok {
						b.Fatalf("%q is there", k)
					}
				}
			}
			b.ReportMetric(bytes, "B/name")
		})
		runtime.KeepAlive(tab)
	}
}

func value(i int) string { return fmt.Sprintf("1f2e3d4c-0000-4000-8000-%012d", i) }

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
