package dispenser

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

func TestTable_PlansLoadedAgain(t *testing.T) {
	var limits table[limitKey, *authz.Limit]
	limit := func(zone string, units int64) *authz.Limit {
		l := &authz.Limit{Name: "monthly", Units: units, Window: authz.WindowMonth}
		if zone != "" {
			var err error
			if l.Zone, err = time.LoadLocation(zone); err != nil {
				t.Fatal(err)
			}
		}
		return l
	}
	for range 3 {
		for want, l := range []*authz.Limit{limit("", 5), limit("Europe/Berlin", 5), limit("Europe/Berlin", 6)} {
			if got := limits.numberOf(keyOf(l), l); got != int64(want) {
				t.Errorf("limit %d has number %d", want, got)
			}
		}
	}
	if got := limits.at(1); got.Units != 5 || got.Zone.String() != "Europe/Berlin" {
		t.Errorf("limit 1 is %+v", got)
	}
}

// BenchmarkIdle puts holders away and wakes them (on), and has them all in use (off): the time of a collection and the bytes of a
// holder are what callers who have gone cost all others.
func BenchmarkIdle(b *testing.B) {
	const holders = 200_000
	limits, facts := []authz.Limit{{Name: "daily", Units: 10_000, Window: authz.WindowDay}, {Name: "rate", Units: 600, Window: authz.WindowMinute}}, make([]authz.QuotaFact, 2)
	for _, device := range []string{"on", "off"} {
		b.Run("device="+device, func(b *testing.B) {
			var r authz.Reservation
			d := New(grants{memory.NewLedger(time.Now)}, "n", time.Now)
			names := make([]authz.Holder, holders)
			before := collect()
			visit := func(h authz.Holder) {
				if !d.Reserve(b.Context(), h, limits, authz.Charge{"daily": 1, "rate": 1}, facts, &r) {
					b.Fatalf("refused: %+v", facts)
				}
			}
			for i := range names {
				names[i].Key = fmt.Sprint("key_", i)
				visit(names[i])
			}
			if device == "on" {
				d.Sweep(b.Context())
				d.Sweep(b.Context())
			}
			began := time.Now()
			bytes := collect() - before
			took := time.Since(began)
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				h := names[i%holders]
				visit(h)
				if device == "on" {
					at := d.holderOf(quota.HolderOf(&limits[0], h))
					at.sweep()
					at.sweep()
				}
			}
			b.ReportMetric(float64(took.Microseconds())/1000, "ms/collection")
			b.ReportMetric(float64(bytes)/holders, "B/holder")
			runtime.KeepAlive(names)
		})
	}
}

// collect runs the garbage collector and returns the bytes in use.
func collect() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// grants is a ledger that grants everything and keeps nothing.
type grants struct{ quota.Ledger }

func (grants) Lease(_ context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	out := make([]quota.Answer, len(rs))
	for i, r := range rs {
		for _, p := range r.Parts {
			out[i].Parts = append(out[i].Parts, quota.Lease{Period: quota.PeriodAt(&p.Limit, time.Now()), Granted: p.Want, Held: p.Want, Counted: p.Want, Nodes: 1})
		}
	}
	return out, nil
}
