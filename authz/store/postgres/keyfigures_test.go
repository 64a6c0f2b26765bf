package postgres

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// A key that is switched off, is off on another node soon after that was acknowledged.
func TestFigures_KeyReachesOtherNode(t *testing.T) {
	url := migrated(t)
	here, there := open(t, Options{URL: url}), open(t, Options{URL: url})
	s, other, key := here.Keys(), there.Keys(), callers("k", 1)[0]
	importKeys(t, s, []apikey.Key{key})
	hears(t, there)
	var took figures
	for i := range 300 {
		off := i%2 == 0
		if _, err := s.AmendKey(t.Context(), key.ID, apikey.KeyChange{Disabled: &off}); err != nil {
			t.Fatal(err)
		}
		acknowledged := time.Now()
		for {
			if k, err := other.Find(t.Context(), key.Digest); err == nil && k.Disabled == off {
				break
			}
			runtime.Gosched()
			if time.Since(acknowledged) > 20*time.Second {
				t.Fatal("it does not arrive")
			}
		}
		took = append(took, time.Since(acknowledged))
	}
	took.log(t, "a key to another node", 2*time.Second)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkMillionKeys imports a million keys, all or none, loads them on another node, and looks callers up there.
func BenchmarkMillionKeys(b *testing.B) {
	const n = 1_000_000
	url := migrated(b)
	writer := open(b, Options{URL: url})
	writer.Keys()
	keys := callers("a-foreign-key-", n)
	before, began := heap(), time.Now()
	if _, err := writer.Keys().Import(b.Context(), keys); err != nil {
		b.Fatal(err)
	}
	b.Logf("imported in %s, which left %d MB more in memory", time.Since(began).Round(time.Millisecond), (heap()-before)>>20)
	before = heap()
	db := open(b, Options{URL: url, CopyDir: b.TempDir()})
	began = time.Now()
	s := db.Keys()
	if _, ok := s.Age(); !ok {
		b.Fatal("not loaded")
	}
	b.Logf("loaded in %s, %d MB", time.Since(began).Round(time.Millisecond), (heap()-before)>>20)
	texts := make([]string, n)
	for i := range texts {
		texts[i] = keys[i].ID
	}
	who, rnd := apikey.NewIdentifier(s, apikey.Hasher{}), rand.New(rand.NewPCG(1, 2))
	order := rnd.Perm(n)[:20_000]
	b.Run("first", func(b *testing.B) {
		for i := range b.N {
			if _, a := who.Identify(b.Context(), texts[order[i%len(order)]], time.Now()); a.Status != authz.AccountActive {
				b.Fatal(a)
			}
		}
	})
	b.Run("again", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if _, a := who.Identify(b.Context(), texts[order[rnd.IntN(1000)]], time.Now()); a.Status != authz.AccountActive {
				b.Fatal(a)
			}
		}
	})
	b.Run("unknown", func(b *testing.B) {
		for i := range b.N {
			if k, _ := who.Identify(b.Context(), fmt.Sprint("unknown-", i), time.Now()); k.Status != authz.KeyUnknown {
				b.Fatal(k)
			}
		}
	})
	copied(b, s)
	b.Logf("copy of %d MB", s.feed.copy.base>>20)
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	again := open(b, Options{URL: url, CopyDir: db.o.CopyDir})
	began = time.Now()
	again.Keys()
	b.Logf("loaded from the copy in %s", time.Since(began).Round(time.Millisecond))
}
