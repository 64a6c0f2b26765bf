package dispenser

import (
	"cmp"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser/holding"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// TestBucketLease_SizeFitsTheShare has leases taper as the limit nears, down to one unit, and fit the caller's pace. None has more
// than the caller used of late, beyond one percent of the limit.
func TestBucketLease_SizeFitsTheShare(t *testing.T) {
	limit := authz.Limit{Name: "daily", Units: 10_000, Window: authz.WindowDay}
	d := New(memory.NewLedger(time.Now), "n", time.Now)
	const steady = 4500 * time.Millisecond
	for _, c := range []struct {
		nodes, counted, left int64
		lasted               time.Duration
		used                 int64 // of late; 0: much
		size, want           int64
	}{
		{nodes: 1, counted: 0, lasted: steady, size: 400, want: 400},
		{nodes: 1, counted: 9_400, lasted: steady, size: 400, want: 300},
		{nodes: 1, counted: 9_990, lasted: steady, size: 400, want: 5},
		{nodes: 1, counted: 9_999, lasted: steady, size: 400, want: 1},
		{nodes: 1, counted: 10_000, lasted: steady, size: 400, want: 100},
		{nodes: 2, counted: 9_400, lasted: steady, size: 400, want: 300},
		{nodes: 4, counted: 9_400, lasted: steady, size: 400, want: 150},
		{nodes: 4, counted: 9_990, lasted: steady, size: 400, want: leastShared},
		{nodes: 1, counted: 0, lasted: time.Second, size: 400, want: 800},
		{nodes: 1, counted: 400, left: 400, lasted: time.Second, size: 400, want: 400},
		{nodes: 1, counted: 0, lasted: 8 * time.Second, size: 400, want: 200},
		{nodes: 1, counted: 0, lasted: time.Hour, size: 400, want: 100},
		{nodes: 1, counted: 0, lasted: time.Second, used: 700, size: 400, want: 700},
		{nodes: 1, counted: 0, lasted: time.Second, used: 30, size: 400, want: 100},
	} {
		b := newBucketLease(newHolder(d, quota.HolderID{Holder: "k"}), countOf(&limit), &limit, quota.Period{})
		sent := holding.Sent{At: time.Now().Add(-c.lasted), Session: 1}
		b.source.Load().Refill(quota.Lease{Granted: c.left, Held: c.left, Counted: c.counted}, sent, limit.Units, 0)
		b.size, b.nodes = c.size, c.nodes
		b.taken[0] = b.source.Load().Taken() - cmp.Or(c.used, limit.Units)
		if got := b.sizeLocked(&limit); got != c.want && got != c.want-1 { // time goes by
			t.Errorf("%d nodes, %d of %d counted, lasted %v: lease of %d, want %d", c.nodes, c.counted, limit.Units, c.lasted, got, c.want)
		}
	}
}
