package dispenser_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// TestDispenser_LimitChanged moves a caller to a plan that grants fewer or more while the node holds units, and asks at once.
func TestDispenser_LimitChanged(t *testing.T) {
	for _, c := range []struct {
		name           string
		before, after  int64
		used, wantMore int64
	}{
		{"lowered below what was used", 100_000, 3, 3000, 0},
		{"lowered above what was used", 100_000, 3100, 3000, 100},
		{"lowered to what was used", 100_000, 3000, 3000, 0},
		{"lowered to nothing", 1000, 0, 1, 0},
		{"raised while units are left", 10, 25, 5, 20},
		{"raised when exhausted", 10, 25, 10, 15},
		{"raised from nothing", 0, 7, 0, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			ledger := memory.NewLedger(time.Now)
			d := dispenser.New(ledger, "n", time.Now)
			takeSome(t, d, daily(c.before), int(c.used))
			if c.used == c.before {
				takeAll(t, d, daily(c.before)) // none, which is believed for a second
			}
			after := daily(c.after)
			facts := make([]authz.QuotaFact, 1)
			if d.Peek(t.Context(), acme, []authz.Limit{after}, facts); facts[0].Limit != c.after || facts[0].Remaining != c.wantMore {
				t.Errorf("the caller is told %+v, want %d of %d", facts[0], c.wantMore, c.after)
			}
			if more := takeAll(t, d, after); more != c.wantMore {
				t.Errorf("%d more after a change from %d to %d with %d used, want %d", more, c.before, c.after, c.used, c.wantMore)
			}
			b := quota.BucketOf(&after, acme)
			if err := d.Report(t.Context(), b, &after); err != nil { // waits for units that are on their way back
				t.Fatal(err)
			}
			got, err := ledger.Balance(t.Context(), b, after)
			if err != nil {
				t.Fatal(err)
			}
			if held := got.Outstanding["n"]; got.Granted-got.Returned > max(c.after, c.used) {
				t.Errorf("the node holds %d beyond the new limit: %+v", held, got)
			}
			if err := d.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			if got, err := ledger.Balance(t.Context(), quota.BucketOf(&after, acme), after); err != nil || got.Spent != c.used+c.wantMore || got.Overage != 0 {
				t.Errorf("%+v, want %d spent", got, c.used+c.wantMore)
			}
		})
	}
}

// TestDispenser_LimitLoweredTwice lowers, raises and lowers the limit within a second. After a report
// the node holds nothing that the last limit does not grant.
func TestDispenser_LimitLoweredTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := memory.NewLedger(time.Now)
		d := dispenser.New(ledger, "n", time.Now)
		for i, units := range []int64{5, 300, 4} {
			takeSome(t, d, daily(100_000), 10)
			low := daily(units)
			if err := d.Report(t.Context(), quota.BucketOf(&low, acme), &low); err != nil {
				t.Fatal(err)
			}
			got, err := ledger.Balance(t.Context(), quota.BucketOf(&low, acme), low)
			if err != nil {
				t.Fatal(err)
			}
			if used := int64(10 * (i + 1)); got.Granted-got.Returned > max(units, used) {
				t.Errorf("lowered to %d with %d used: %+v", units, used, got)
			}
		}
		_ = d.Close(t.Context())
	})
}

// TestDispenser_LimitLoweredOnTwoNodes has one node use the units, and asks another one after the change.
func TestDispenser_LimitLoweredOnTwoNodes(t *testing.T) {
	ledger := memory.NewLedger(time.Now)
	a, b := dispenser.New(ledger, "a", time.Now), dispenser.New(ledger, "b", time.Now)
	takeSome(t, a, daily(100_000), 1)
	takeSome(t, b, daily(100_000), 3000)
	if more := takeAll(t, a, daily(1000)) + takeAll(t, b, daily(1000)); more != 0 {
		t.Errorf("%d more under 1000 after 3001", more)
	}
	if more := takeAll(t, a, daily(3011)) + takeAll(t, b, daily(3011)); more != 10 {
		t.Errorf("%d more under 3011 after 3001, want 10", more)
	}
}

// TestDispenser_LimitLoweredUnderLoad lowers the limit while many requests reserve.
func TestDispenser_LimitLoweredUnderLoad(t *testing.T) {
	const lowered = 2000
	ledger := memory.NewLedger(time.Now)
	d := dispenser.New(ledger, "n", time.Now)
	var admitted, late atomic.Int64
	var limit atomic.Pointer[authz.Limit]
	first := daily(1_000_000)
	limit.Store(&first)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				l := limit.Load()
				if r, _ := reserve(t, d, authz.Charge{"daily": 1}, *l); r == nil {
					continue
				}
				if n := admitted.Add(1); n == lowered/2 {
					second := daily(lowered)
					limit.Store(&second)
				}
				if l.Units == lowered {
					late.Add(1)
				}
			}
		})
	}
	wg.Wait()
	// Each goroutine may have read the old limit once when it changed.
	if n := admitted.Load(); n < lowered || n > lowered+8 || late.Load() == 0 {
		t.Errorf("%d admitted, %d of them under the new limit of %d", n, late.Load(), lowered)
	}
}

// TestDispenser_TwoPlansOneLimit has keys of one account on a small and a large plan. They share the count, and each key is
// held to the units of its own plan.
func TestDispenser_TwoPlansOneLimit(t *testing.T) {
	small, large := daily(10), daily(5000)
	for _, c := range []struct {
		name                 string
		smallEach, largeEach int
		wantSmall, wantLarge int64
	}{
		{"in turns", 1, 1, 5, 4995},
		{"mostly the small plan", 9, 1, 9, 4991},
		{"mostly the large plan", 1, 7, 2, 4998},
	} {
		t.Run(c.name, func(t *testing.T) {
			ledger := &flaky{Ledger: memory.NewLedger(time.Now)}
			d := dispenser.New(ledger, "n", time.Now)
			var gotSmall, gotLarge int64
			for gotLarge+gotSmall < large.Units {
				for range c.smallEach {
					if r, facts := reserve(t, d, authz.Charge{"daily": 1}, small); r != nil {
						gotSmall++
					} else if facts[0].Limit != 10 || facts[0].State != authz.QuotaExhausted {
						t.Fatalf("the small plan is told %+v", facts[0])
					}
				}
				for range c.largeEach {
					r, facts := reserve(t, d, authz.Charge{"daily": 1}, large)
					if r == nil && gotLarge+gotSmall < large.Units {
						t.Fatalf("the large plan was refused after %d and %d: %+v", gotSmall, gotLarge, facts)
					}
					if r != nil {
						gotLarge++
					}
				}
			}
			if gotSmall != c.wantSmall || gotLarge != c.wantLarge {
				t.Errorf("%d and %d, want %d and %d", gotSmall, gotLarge, c.wantSmall, c.wantLarge)
			}
			if n := ledger.calls.Load(); n > 200 {
				t.Errorf("%d ledger calls for %d reservations", n, large.Units)
			}
			if got := balance(t, ledger, large, d); got.Spent != large.Units || got.Overage != 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestDispenser_OneNameTwoCounts has two limits of one name and holder with different units or periods: neither takes from the
// other.
func TestDispenser_OneNameTwoCounts(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	month := authz.Limit{Name: "use", Units: 10, Unit: authz.UnitRequests, Window: authz.WindowMonth, Per: authz.PerKey}
	for name, change := range map[string]func(*authz.Limit){
		"window": func(l *authz.Limit) { l.Window = authz.WindowMinute },
		"unit":   func(l *authz.Limit) { l.Unit = "tokens" },
		"zone":   func(l *authz.Limit) { l.Zone = berlin },
		"anchor": func(l *authz.Limit) { l.Anchor = 15 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := dispenser.New(memory.NewLedger(time.Now), "n", time.Now)
				other := month
				change(&other)
				var got int
				for range 5 { // minutes
					for range 20 {
						if r, _ := reserve(t, d, authz.Charge{"use": 1}, month); r != nil {
							got++
						}
						reserve(t, d, authz.Charge{"use": 1}, other)
					}
					time.Sleep(time.Minute)
				}
				if got != 10 {
					t.Errorf("%d of 10 a month", got)
				}
				_ = d.Close(t.Context())
			})
		})
	}
}
