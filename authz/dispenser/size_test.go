package dispenser

import (
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// TestBucketLease_SizeFitsTheShare has leases taper as the limit nears: those of a node alone down to one unit, those of
// nodes that share the bucket down to a handful, for they can be recalled.
func TestBucketLease_SizeFitsTheShare(t *testing.T) {
	limit := authz.Limit{Name: "daily", Units: 10_000, Window: authz.WindowDay}
	d := New(memory.NewLedger(time.Now), "n", time.Now)
	for _, c := range []struct{ nodes, counted, size, want int64 }{
		{nodes: 1, counted: 0, size: 400, want: 400},
		{nodes: 1, counted: 9_400, size: 400, want: 300},
		{nodes: 1, counted: 9_990, size: 400, want: 5},
		{nodes: 1, counted: 9_999, size: 400, want: 1},
		{nodes: 1, counted: 10_000, size: 400, want: 1},
		{nodes: 2, counted: 9_400, size: 400, want: 300},
		{nodes: 4, counted: 9_400, size: 400, want: 150},
		{nodes: 4, counted: 9_990, size: 400, want: leastShared},
		{nodes: 4, counted: 10_000, size: 400, want: leastShared},
	} {
		b := newBucketLease(d, quota.BucketOf(&limit, authz.Holder{Key: "k"}), &limit)
		b.source.Load().Refill(quota.Lease{Counted: c.counted, Until: quota.LeaseTerm}, time.Now().Add(-5*time.Second), limit.Units, 0)
		b.size, b.nodes = c.size, c.nodes
		if got := b.sizeLocked(&limit); got != c.want {
			t.Errorf("%d nodes, %d of %d counted: lease of %d, want %d", c.nodes, c.counted, limit.Units, got, c.want)
		}
	}
}
