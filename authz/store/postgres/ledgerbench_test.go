package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

func hourly(units int64) authz.Limit {
	return authz.Limit{Name: "requests", Units: units, Unit: authz.UnitRequests, Window: authz.WindowHour, Per: authz.PerKey}
}

// leaseFor asks for units of one holder. Each seq of a node and a holder is used once.
func leaseFor(node quota.NodeID, holder string, seq uint64, l authz.Limit, want int64) quotatest.Ask {
	return quotatest.Ask{Node: node, Seq: seq, Bucket: quota.Bucket{Per: l.Per, Holder: holder, Limit: l.Name}, Limit: l, Want: want}
}

// BenchmarkLedger_Leases has many callers of some nodes lease at once, each for a holder of its own.
func BenchmarkLedger_Leases(b *testing.B) {
	const callers, each = 1024, 16 // holders of a caller
	for _, nodes := range []int{1, 4} {
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) {
			_, url := ownServer(b, pgtest.Options{})
			var ledgers []*Ledger
			for range nodes {
				ledgers = append(ledgers, open(b, Options{URL: url}).Ledger())
			}
			l := hourly(1 << 40)
			var seq atomic.Uint64
			lease := func(caller, i int) {
				node := quota.NodeID(fmt.Sprint("node-", caller%nodes))
				ask := leaseFor(node, fmt.Sprintf("holder-%d-%d", caller, i%each), seq.Add(1), l, 10)
				if _, err := ask.Send(context.Background(), ledgers[caller%nodes]); err != nil {
					b.Error(err)
				}
			}
			all := func(rounds func(caller int) bool) {
				var wg sync.WaitGroup
				for caller := range callers {
					wg.Go(func() {
						for i := 0; rounds(caller); i++ {
							lease(caller, i)
						}
					})
				}
				wg.Wait()
			}
			for i, s := range ledgers {
				if _, err := s.Renew(b.Context(), quota.NodeID(fmt.Sprint("node-", i)), quota.Standing{}); err != nil {
					b.Fatal(err)
				}
			}
			first := make([]int, callers)
			all(func(caller int) bool { first[caller]++; return first[caller] <= each }) // makes the rows
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			all(func(int) bool { return left.Add(-1) >= 0 })
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "leases/s")
		})
	}
}

// BenchmarkLedger_ColdLease is the first lease of a caller who comes alone, and a bare round trip.
func BenchmarkLedger_ColdLease(b *testing.B) {
	_, url := ownServer(b, pgtest.Options{})
	s, l := open(b, Options{URL: url}).Ledger(), hourly(1000)
	var seqs atomic.Uint64
	for _, c := range []struct {
		name string
		run  func(i int) error
	}{
		{"roundtrip", func(int) error {
			return s.db.read(b.Context(), func(ctx context.Context, conn *pgx.Conn) error { return conn.Ping(ctx) })
		}},
		{"new", func(i int) error {
			_, err := leaseFor("a", fmt.Sprintf("%d-%d", b.N, i), uint64(i)+1, l, 10).Send(b.Context(), s)
			return err
		}},
		{"known", func(i int) error {
			_, err := leaseFor("a", "known", seqs.Add(1), l, 0).Send(b.Context(), s)
			return err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			took := make([]time.Duration, b.N)
			for i := range took {
				began := time.Now()
				if err := c.run(i); err != nil {
					b.Fatal(err)
				}
				took[i] = time.Since(began)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}
