package postgres

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// served are nodes that share a database, each with a DB of its own.
func served(t *testing.T, count int) []*testNode {
	t.Helper()
	url := migrated(t)
	var ids []quota.NodeID
	for i := range count {
		ids = append(ids, quota.NodeID(rune('a'+i)))
	}
	var nodes []*testNode
	for _, id := range ids {
		db := open(t, Options{URL: url})
		n := &testNode{id: id, buckets: make(chan quota.Bucket, 1)}
		n.m = db.serveNodes(func(node quota.NodeID) (others []quota.NodeID) {
			for _, other := range ids {
				if other != node {
					others = append(others, other)
				}
			}
			return others
		})
		n.leave = n.m.Join(id, n)
		hears(t, db)
		nodes = append(nodes, n)
	}
	return nodes
}

func TestNodes_RecallAndBorrow(t *testing.T) {
	for count := 2; count <= 3; count++ {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			nodes := served(t, count)
			nodes[count-1].units.Store(70)
			b := testBucket("\x00\xff")
			nodes[0].m.Recall(within(t, 10*time.Second), "a", b)
			for _, n := range nodes[1:] {
				if n.given.Load() != 1 {
					t.Errorf("%s gave back %d times", n.id, n.given.Load())
				}
				if got := <-n.buckets; got != b {
					t.Errorf("%s was asked about %+v", n.id, got)
				}
			}
			if got := nodes[0].m.Borrow(within(t, 10*time.Second), "a", testRate(50)); got != 50 {
				t.Errorf("borrowed %d, want 50", got)
			}
		})
	}
}

// A node whose process is gone is in the list of members for up to a minute.
func TestNodes_LostNode(t *testing.T) {
	nodes := served(t, 3)
	nodes[2].m.close()
	recall := func() time.Duration {
		return took(func() { nodes[0].m.Recall(within(t, time.Second), "a", testBucket("acme")) })
	}
	if d := recall(); d < 400*time.Millisecond || d > time.Second {
		t.Errorf("the first recall took %s, want half of the time that was left", d)
	}
	if d := recall(); d > 300*time.Millisecond {
		t.Errorf("the second recall took %s", d)
	}
	if n := nodes[1].given.Load(); n != 2 {
		t.Errorf("the other node gave back %d times, want 2", n)
	}
}

func TestFigures_Messages(t *testing.T) {
	nodes := served(t, 3)
	nodes[1].units.Store(1 << 40)
	nodes[2].units.Store(1 << 40)
	var recalls, loans figures
	for i := range 300 {
		recalls = append(recalls, took(func() { nodes[0].m.Recall(t.Context(), "a", testBucket(fmt.Sprint(i))) }))
		loans = append(loans, took(func() {
			if got := nodes[0].m.Borrow(t.Context(), "a", testRate(1)); got != 1 {
				t.Errorf("borrowed %d", got)
			}
		}))
	}
	recalls.log(t, "recall from two nodes", time.Second)
	loans.log(t, "loan of another node", time.Second)

	const callers, each = 32, 50
	var many figures
	var mu sync.Mutex
	var wg sync.WaitGroup
	began := time.Now()
	for range callers {
		wg.Go(func() {
			for range each {
				d := took(func() { nodes[0].m.Borrow(context.Background(), "a", testRate(1)) })
				mu.Lock()
				many = append(many, d)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d callers: %.0f loans/s", callers, callers*each/time.Since(began).Seconds())
	many.log(t, "a loan", time.Second)
}
