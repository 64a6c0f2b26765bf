package quotatest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// recallsAll has a recall reach every node except the one that asks, until it stops.
func recallsAll(f *fixture) {
	var (
		mu    sync.Mutex
		heard []quota.NodeID
	)
	bucket := bucketFor(tenAnHour())
	stop := make(map[quota.NodeID]func())
	for _, node := range []quota.NodeID{"a", "b", "c"} {
		stop[node] = f.ledger.OnRecall(node, func(_ context.Context, b quota.Bucket) {
			mu.Lock()
			defer mu.Unlock()
			if b != bucket {
				f.Errorf("node %s is asked for %+v", node, b)
			}
			heard = append(heard, node)
		})
	}
	recall := func(node quota.NodeID, want ...quota.NodeID) {
		f.Helper()
		heard = nil
		f.ledger.Recall(f.Ctx(), node, bucket)
		if slices.Sort(heard); !slices.Equal(heard, want) {
			f.Fatalf("recall of node %s asked %q, want %q", node, heard, want)
		}
	}
	recall("a", "b", "c")
	recall("stranger", "a", "b", "c")
	stop["b"]()
	recall("a", "c")
	stop["c"]()
	recall("a")
	stop["a"]()
}

// recallFrees has a node learn how many units others hold, recall them and lease them.
func recallFrees(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 7)
	defer f.ledger.OnRecall("a", func(context.Context, quota.Bucket) { f.giveBack("a", l, 2, 5) })()
	if got := f.lease("b", l, 0, 10); got.Granted != 3 || got.Elsewhere != 7 || got.Nodes != 2 {
		f.Fatalf("lease before the recall: %+v", got)
	}
	f.ledger.Recall(f.Ctx(), "b", bucketFor(l))
	if got := f.lease("b", l, 0, 10); got.Granted != 5 || got.Held != 8 || got.Elsewhere != 0 {
		f.Fatalf("lease after the recall: %+v", got)
	}
}

// recallEnds recalls from a node that does not answer: the recall ends with its context, and the node keeps its units.
func recallEnds(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 7)
	defer f.ledger.OnRecall("a", func(ctx context.Context, _ quota.Bucket) { <-ctx.Done() })()
	ctx, cancel := context.WithTimeout(f.Ctx(), 10*time.Millisecond)
	defer cancel()
	f.ledger.Recall(ctx, "b", bucketFor(l))
	if got := f.lease("b", l, 0, 10); got.Granted != 3 || got.Elsewhere != 7 {
		f.Fatalf("lease after a recall in vain: %+v", got)
	}
}

// sharing counts the nodes that share a bucket: those that were heard of within the term of a lease.
func sharing(f *fixture) {
	l := tenAnHour()
	if got := f.lease("a", l, 0, 2); got.Nodes != 1 || got.Elsewhere != 0 {
		f.Fatalf("a node alone: %+v", got)
	}
	f.clock.Advance(quota.LeaseTerm / 2)
	f.lease("b", l, 0, 3)
	if got := f.lease("c", l, 0, 0); got.Nodes != 3 || got.Elsewhere != 5 {
		f.Fatalf("the third node: %+v", got)
	}
	f.clock.Advance(quota.LeaseTerm / 2)
	if got := f.lease("c", l, 0, 0); got.Nodes != 2 || got.Elsewhere != 3 {
		f.Fatalf("when the lease of the first has run out: %+v", got)
	}
	f.clock.Advance(quota.LeaseTerm)
	if got := f.lease("c", l, 0, 0); got.Nodes != 1 || got.Elsewhere != 0 {
		f.Fatalf("alone again: %+v", got)
	}
}
