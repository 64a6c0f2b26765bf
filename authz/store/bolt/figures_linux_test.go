package bolt_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// BenchmarkRareCallers leases for 200,000 holders in random order, one at a time and 64 at a time. It reports the processor time and
// the bytes written for a lease, the moving of what was written to the file included, and what a lease and a bare sync took. Few
// rounds flatter nothing: with b.N below 100,000 the file has few changes in each page.
func BenchmarkRareCallers(b *testing.B) {
	const holders = 200_000
	path := filepath.Join(b.TempDir(), "tollkeeper.db")
	db := openIn(b, path)
	var seq atomic.Uint64
	leaseAll(b, db, &seq, 512, holders, func(i int) int { return i })
	for _, goroutines := range []int{1, 64} {
		b.Run(fmt.Sprint(goroutines, " at a time"), func(b *testing.B) {
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
			db = openIn(b, path)
			order := rand.Perm(holders)
			cpu, bytes := cpuTime(b), bytesWritten(b)
			b.ResetTimer()
			took := leaseAll(b, db, &seq, goroutines, b.N, func(i int) int { return order[i%holders] })
			b.StopTimer()
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(bytesWritten(b)-bytes)/float64(b.N), "written-B/op")
			b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-us")
			b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-us")
			syncs := bareSyncs(b, 2000)
			b.ReportMetric(float64(syncs[len(syncs)/2])/1e3, "sync-p50-us")
			b.ReportMetric(float64(syncs[len(syncs)*99/100])/1e3, "sync-p99-us")
			db = openIn(b, path)
		})
	}
	_ = db.Close()
}

// leaseAll makes n leases and returns how long each took, sorted.
func leaseAll(b *testing.B, db *bolt.DB, seq *atomic.Uint64, goroutines, n int, holder func(int) int) []time.Duration {
	b.Helper()
	l := authz.Limit{Name: "requests", Units: quota.MaxUnits, Window: authz.WindowMonth, Per: authz.PerKey}
	took := make([]time.Duration, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				began := time.Now()
				if _, err := (quotatest.Ask{
					Node: "node-1", Seq: seq.Add(1), Limit: l, Want: 1,
					Bucket: quota.Bucket{Per: l.Per, Holder: fmt.Sprintf("key_%08d", holder(i)), Limit: l.Name, Unit: "requests", Window: l.Window},
				}).Send(b.Context(), db.Ledger()); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(began)
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took
}

// bareSyncs appends 512 bytes to a file and syncs it, n times, and returns how long each took, sorted.
func bareSyncs(b *testing.B, n int) []time.Duration {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "sync"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	took := make([]time.Duration, n)
	for i := range took {
		began := time.Now()
		if _, err := f.Write(make([]byte, 512)); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func bytesWritten(b *testing.B) int64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var n int64
		if _, err := fmt.Sscanf(line, "write_bytes: %d", &n); err == nil {
			return n
		}
	}
	b.Fatal("no write_bytes")
	return 0
}
