package holding

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// running is a session that has begun and does not end in a test.
func running() *Session {
	s := NewSession(time.Now())
	s.Renew(1, time.Now(), 24*time.Hour)
	return s
}

// TestHolding_DoesAsTheOracle does the same to a Holding and to the one with a lock.
func TestHolding_DoesAsTheOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 3, 29, 0, 59, 50, 0, time.UTC) // the end of the period is near
		period := quota.PeriodAt(&authz.Limit{Window: authz.WindowMinute}, now)
		if rapid.Bool().Draw(t, "prepaid") {
			period = quota.Period{}
		}
		node := NewSession(now)
		node.Renew(1, now, time.Minute)
		h, o := New(node, period), newLocked(node, period)
		draw := func(what string) int64 { return rapid.Int64Range(0, 20).Draw(t, what) }
		same := func(what string, got, want any) {
			if got != want {
				t.Fatalf("%s: %v, want %v", what, got, want)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(*rapid.T) {
				units, limit := draw("units"), draw("limit")
				clock := func() time.Time { return now }
				same("take", h.Take(units, limit, clock), o.Take(units, limit, clock))
			},
			"refill": func(*rapid.T) {
				granted, limit := draw("granted"), draw("limit")
				l := quota.Lease{Granted: granted, Held: granted + draw("held"), Counted: draw("counted")}
				sent := Sent{now, node.Number() - uint64(rapid.IntRange(0, 1).Draw(t, "old"))}
				h.Refill(l, sent, limit, 3)
				o.Refill(l, sent, limit, 3)
			},
			"renew":   func(*rapid.T) { node.Renew(node.Number(), now, time.Duration(draw("term"))*time.Second) },
			"session": func(*rapid.T) { node.Renew(node.Number()+1, now, time.Minute) },
			"put away and back": func(*rapid.T) {
				again := New(node, period)
				again.Restart(h.Retire())
				if h.Left() != 0 || h.Known(20, now) || h.Take(0, 20, func() time.Time { return now }) {
					t.Fatal("a holding that was put away can be used")
				}
				o.issued, o.reported = o.issued-o.reported, 0
				h = again
			},
			"drain":   func(*rapid.T) { same("drain", h.Drain(), o.Drain()) },
			"give up": func(*rapid.T) { n := draw("units"); same("give up", h.GiveUp(n), o.GiveUp(n)) },
			"restock": func(*rapid.T) {
				n := draw("units")
				h.Restock(n)
				o.Restock(n)
			},
			"report":  func(*rapid.T) { same("report", h.Unreported(), o.Unreported()) },
			"restore": func(*rapid.T) { n := draw("units"); same("restore", h.Restore(n), o.Restore(n)) },
			"wait":    func(*rapid.T) { now = now.Add(time.Duration(draw("seconds")) * time.Second / 4) },
			"": func(*rapid.T) {
				limit := draw("limit")
				same("known", h.Known(limit, now), o.Known(limit, now))
				same("remaining", h.Remaining(limit), o.Remaining(limit))
				same("left, issued and reported", [3]int64{h.Left(), h.issued, h.reported}, [3]int64{o.left, o.issued, o.reported})
			},
		})
	})
}

// TestHolding_ConcurrentTakesAreExact has many goroutines take while another one leases, gives back and reports. All units
// of the limit are taken, and no more.
func TestHolding_ConcurrentTakesAreExact(t *testing.T) {
	const limit = 5000
	h := New(running(), quota.Period{})
	var (
		taken atomic.Int64
		wg    sync.WaitGroup
		mu    sync.Mutex // as the lock of a bucketLease
		done  atomic.Bool
	)
	for range 4 {
		wg.Go(func() {
			for i := 0; !done.Load(); i++ {
				if !h.Take(1, limit, time.Now) {
					continue
				}
				if taken.Add(1); i%10 == 0 { // the request is cancelled
					mu.Lock()
					if h.Restore(1) {
						taken.Add(-1)
					}
					mu.Unlock()
				}
			}
		})
	}
	var counted, reported int64 // as the ledger has them
	for end := time.Now().Add(20 * time.Second); taken.Load() < limit && time.Now().Before(end); {
		mu.Lock()
		reported += h.Unreported()
		granted := min(37, limit-counted)
		counted += granted
		h.Refill(quota.Lease{Granted: granted, Held: counted - reported, Counted: counted}, Sent{time.Now(), 1}, limit, 0)
		counted -= h.GiveUp(5)
		mu.Unlock()
	}
	done.Store(true)
	wg.Wait()
	for h.Take(1, limit, time.Now) { // units of the last request that was cancelled
		taken.Add(1)
	}
	if taken.Load() != limit || h.issued != limit || h.Left() != 0 || counted != limit {
		t.Errorf("%d of %d taken: issued %d, left %d, counted %d", taken.Load(), limit, h.issued, h.Left(), counted)
	}
}

// TestHolding_Overreported reports a unit while a request has it that came too late. It is here, and the ledger counts it as spent.
func TestHolding_Overreported(t *testing.T) {
	h := New(running(), quota.Period{})
	h.Refill(quota.Lease{Granted: 5, Held: 5, Counted: 5}, Sent{time.Now(), 1}, 10, 0)
	late := func() time.Time { // between the two looks at the terms
		if n := h.Unreported(); n != 1 {
			t.Errorf("%d are reported", n)
		}
		return time.Now().Add(48 * time.Hour)
	}
	if h.Take(1, 10, late) || h.Left() != 5 || h.Held() != 4 {
		t.Fatalf("left %d, held %d", h.Left(), h.Held())
	}
	if n := h.Overreported(); n != 1 || h.Left() != 4 || h.Held() != 4 || h.Overreported() != 0 {
		t.Errorf("%d to be refunded, left %d, held %d", n, h.Left(), h.Held())
	}
}

// BenchmarkTake takes from a Holding (on) and from the oracle (off). "cost" is what a take costs. "wait" has many goroutines
// compete for the processors, with 10 µs of other work between two takes as in checks; its p99.9 is how long a take waits
// when another one is interrupted.
func BenchmarkTake(b *testing.B) {
	type takes interface {
		Take(units, limit int64, now func() time.Time) bool
		Refill(l quota.Lease, sent Sent, limit, low int64)
	}
	const limit = quota.MaxUnits / 2
	for _, device := range []struct {
		name string
		takes
	}{
		{"device=on", New(running(), quota.Period{})},
		{"device=off", newLocked(running(), quota.Period{})},
	} {
		device.Refill(quota.Lease{Granted: limit, Held: limit, Counted: limit}, Sent{time.Now(), 1}, limit, 0)
		b.Run("cost/"+device.name, func(b *testing.B) {
			for b.Loop() {
				device.Take(1, limit, time.Now)
			}
		})
		b.Run("wait/"+device.name, func(b *testing.B) {
			waits := waitsOf(b, func() { device.Take(1, limit, time.Now) })
			slices.Sort(waits)
			for per, name := range map[int]string{2: "p50", 1000: "p99.9", 10_000: "p99.99"} {
				b.ReportMetric(float64(waits[len(waits)-1-len(waits)/per]), fmt.Sprint(name, "-ns"))
			}
		})
	}
}

// waitsOf returns how long each take took.
func waitsOf(b *testing.B, take func()) (all []time.Duration) {
	var mu sync.Mutex
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		var took []time.Duration
		for pb.Next() {
			began := time.Now()
			for time.Since(began) < 10*time.Microsecond {
			}
			began = time.Now()
			take()
			took = append(took, time.Since(began))
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, took...)
	})
	return all
}
