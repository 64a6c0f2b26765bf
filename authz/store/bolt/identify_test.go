package bolt_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// callers are keys of as many accounts, and their texts.
func callers(n int) (keys []apikey.Key, texts []string) {
	keys = manyKeys(n)
	texts = make([]string, n)
	for i := range keys {
		texts[i] = fmt.Sprintf("tk-%032d", i)
		keys[i].Account, keys[i].Digest = fmt.Sprint("account-", i), apikey.Hasher{}.Text(texts[i])
	}
	return keys, texts
}

// millionCallers is a file with a million callers, and the texts of their keys. To make it takes a minute or two.
func millionCallers(b *testing.B) (path string, texts []string) {
	path = filepath.Join(b.TempDir(), "tollkeeper.db")
	keys, texts := callers(1_000_000)
	db := openIn(b, path)
	importAll(b, db, keys, 5000)
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	return path, texts
}

// BenchmarkIdentify looks up callers at random, each of them with an account of its own, in a file with a million. Before that, each
// has come once: that is ns/first.
func BenchmarkIdentify(b *testing.B) {
	path, texts := millionCallers(b)
	for _, n := range []int{1000, 50_000, 200_000, len(texts)} {
		b.Run(fmt.Sprint("callers=", n), func(b *testing.B) {
			db := openIn(b, path)
			defer func() { _ = db.Close() }()
			who := apikey.NewIdentifier(db.Keys(), apikey.Hasher{})
			order := rand.New(rand.NewPCG(1, 2)).Perm(len(texts))[:n]
			identify := func(i int) {
				if _, account := who.Identify(b.Context(), texts[order[i]], time.Now()); account.Status != authz.AccountActive {
					b.Fatal(account)
				}
			}
			fresh, began := memory(), time.Now()
			for i := range order {
				identify(i)
			}
			first, aged := time.Since(began), memory()
			at := rand.New(rand.NewPCG(3, 4))
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				identify(at.IntN(n))
			}
			b.ReportMetric(float64(first.Nanoseconds())/float64(n), "ns/first")
			b.ReportMetric(float64(aged.HeapAlloc-fresh.HeapAlloc)/float64(n), "B/caller")
			b.ReportMetric(float64(aged.HeapObjects-fresh.HeapObjects)/float64(n), "objects/caller")
		})
	}
}

func memory() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}

// BenchmarkOnPlans visits the plans of a million keys and accounts.
func BenchmarkOnPlans(b *testing.B) {
	path, _ := millionCallers(b)
	db := openIn(b, path)
	defer func() { _ = db.Close() }()
	for b.Loop() {
		plans := make(map[string]int)
		if err := db.Keys().OnPlans(b.Context(), func(u apikey.PlanUse) error {
			plans[u.Plan]++
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
}
