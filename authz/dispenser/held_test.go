package dispenser_test

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// TestDispenser_Held follows two callers: in use, put away, one come again, and both returned. The ledger has what the node holds,
// and what it spent and did not report.
func TestDispenser_Held(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := memory.NewLedger(time.Now)
		d := dispenser.New(ledger, "n", time.Now)
		limit := daily(1000)
		held := func(when string, inUse, putAway int) int64 {
			t.Helper()
			synctest.Wait()
			got := d.Held()
			if got.InUse != inUse || got.PutAway != putAway {
				t.Errorf("%s: %+v, want %d in use and %d put away", when, got, inUse, putAway)
			}
			return got.Units[limit.Name]
		}
		if got := d.Held(); got.InUse != 0 || len(got.Units) != 0 {
			t.Errorf("at the start: %+v", got)
		}
		takeSome(t, d, limit, 3)
		other := authz.Holder{Account: "other"}
		if !d.Reserve(t.Context(), other, []authz.Limit{limit}, authz.Charge{limit.Name: 1}, make([]authz.QuotaFact, 1), new(authz.Reservation)) {
			t.Fatal("refused")
		}
		const spent = 4
		synctest.Wait()
		var outstanding int64
		for _, account := range []string{acme.Account, other.Account} {
			b, err := ledger.Balance(t.Context(), quota.BucketOf(&limit, authz.Holder{Account: account}), limit)
			if err != nil {
				t.Fatal(err)
			}
			outstanding += b.Outstanding["n"] + b.Spent
		}
		units := held("in use", 2, 0)
		if units <= 0 || units != outstanding-spent {
			t.Errorf("%d units are held, want %d - %d", units, outstanding, spent)
		}
		sweepFor(d, t, 20*time.Second)
		if n := held("put away", 0, 2); n != units {
			t.Errorf("%d units are put away, of %d", n, units)
		}
		takeSome(t, d, limit, 1)
		if n := held("one came again", 1, 1); n != units-1 {
			t.Errorf("%d units are left of %d, after one more was spent", n, units)
		}
		if err := d.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := d.Held(); got.InUse+got.PutAway != 0 || !reflect.DeepEqual(got.Units, map[string]int64{limit.Name: 0}) {
			t.Errorf("after all was returned: %+v", got)
		}
	})
}
