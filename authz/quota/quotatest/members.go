package quotatest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

var memberTests = suite{
	{"lease says who shares the bucket", sharing},
	{"sessions", sessions},
	{"a node that joins waits until the others make room", joins},
	{"borrow asks other nodes until there is enough", borrows},
	{"recall asks every other node", recallsAll},
	{"recall frees units", recallFrees},
	{"recall ends with its context", recallEnds},
}

// peer is a node that others ask.
type peer struct {
	giveBack func(context.Context, quota.Bucket)
	lend     func(quota.RateRequest) int64
}

func (p peer) GiveBack(ctx context.Context, b quota.Bucket) { p.giveBack(ctx, b) }
func (p peer) Lend(r quota.RateRequest) int64               { return p.lend(r) }

// recallsAll has a recall reach every node except the one that asks, until it stops.
func recallsAll(f *fixture) {
	var (
		mu    sync.Mutex
		heard []quota.NodeID
	)
	bucket := bucketFor(tenAnHour())
	stop := make(map[quota.NodeID]func())
	for _, node := range []quota.NodeID{"a", "b", "c"} {
		stop[node] = f.ledger.Join(node, peer{giveBack: func(_ context.Context, b quota.Bucket) {
			mu.Lock()
			defer mu.Unlock()
			if b != bucket {
				f.Errorf("node %s is asked for %+v", node, b)
			}
			heard = append(heard, node)
		}})
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
	defer f.ledger.Join("a", peer{giveBack: func(context.Context, quota.Bucket) { f.giveBack("a", l, 2, 5) }})()
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
	defer f.ledger.Join("a", peer{giveBack: func(ctx context.Context, _ quota.Bucket) { <-ctx.Done() }})()
	ctx, cancel := context.WithTimeout(f.Ctx(), 10*time.Millisecond)
	defer cancel()
	f.ledger.Recall(ctx, "b", bucketFor(l))
	if got := f.lease("b", l, 0, 10); got.Granted != 3 || got.Elsewhere != 7 {
		f.Fatalf("lease after a recall in vain: %+v", got)
	}
}

// sharing counts the nodes that share a holder: those whose session runs and that hold units or asked of late.
func sharing(f *fixture) {
	l := tenAnHour()
	if got := f.lease("a", l, 0, 2); got.Nodes != 1 || got.Elsewhere != 0 {
		f.Fatalf("a node alone: %+v", got)
	}
	f.clock.Advance(quota.SessionTerm / 2)
	f.lease("b", l, 0, 3)
	if got := f.lease("c", l, 0, 0); got.Nodes != 3 || got.Elsewhere != 5 {
		f.Fatalf("the third node: %+v", got)
	}
	f.clock.Advance(quota.SessionTerm / 2)
	if got := f.lease("c", l, 0, 0); got.Nodes != 2 || got.Elsewhere != 3 {
		f.Fatalf("when the session of the first is over: %+v", got)
	}
	f.clock.Advance(quota.SessionTerm)
	if got := f.lease("c", l, 0, 0); got.Nodes != 1 || got.Elsewhere != 0 {
		f.Fatalf("alone again: %+v", got)
	}
}

// sessions begin, run on when they are renewed in time, and are others when they are not.
func sessions(f *fixture) {
	first := f.renew("a")
	if first.Number == 0 || first.Term != quota.SessionTerm {
		f.Fatalf("the first session: %+v", first)
	}
	f.clock.Advance(quota.SessionTerm - time.Second)
	if again := f.renew("a"); again.Number != first.Number {
		f.Fatalf("renewed in time: %+v, was %+v", again, first)
	}
	f.clock.Advance(quota.SessionTerm)
	second := f.renew("a")
	if second.Number <= first.Number {
		f.Fatalf("renewed too late: %+v, was %+v", second, first)
	}
	leave := f.ledger.Join("b", peer{})
	was := f.renew("b")
	leave()
	f.renew("dead")
	if _, err := f.ledger.Renew(f.Ctx(), "heir", quota.Standing{Replaces: "dead"}); err != nil {
		f.Fatal(err)
	}
	third := f.renew("dead")
	if heir := f.renew("heir"); third.Number <= heir.Number {
		f.Fatalf("a node that was replaced has its session still: %+v, its heir %+v", third, heir)
	}
	l := tenAnHour()
	f.Same("what is held", f.lease("a", l, 0, 4).Held, int64(4))
	if again := f.renew("b"); again.Number <= was.Number {
		f.Fatalf("a node that left has its session again: %+v, was %+v", again, was)
	}
}

// joins has a node join others. It gets a share when they go by a view with it, or are gone.
func joins(f *fixture) {
	renew := func(node quota.NodeID, applied uint64) quota.View {
		f.Helper()
		s, err := f.ledger.Renew(f.Ctx(), node, quota.Standing{Applied: applied})
		if err != nil {
			f.Fatal(err)
		}
		return s.View
	}
	alone := renew("b", 0)
	if alone.Nodes != 1 || alone.Rank != 0 {
		f.Fatalf("a node alone: %+v", alone)
	}
	if got := renew("a", 0); got.Nodes != 0 {
		f.Fatalf("a node that has just joined: %+v", got)
	}
	both := renew("b", alone.Number)
	if both.Nodes != 2 || both.Rank != 1 || both.Number <= alone.Number {
		f.Fatalf("the first node when another has joined: %+v", both)
	}
	if got := renew("a", 0); got.Nodes != 0 {
		f.Fatalf("the other node does not yet go by the view: %+v", got)
	}
	renew("b", both.Number)
	if got := renew("a", 0); got.Nodes != 2 || got.Rank != 0 {
		f.Fatalf("when it does: %+v", got)
	}
	f.clock.Advance(quota.SessionTerm / 2)
	a := renew("a", 0)
	if got := renew("c", 0); got.Nodes != 0 {
		f.Fatalf("a third node: %+v", got)
	}
	f.clock.Advance(quota.SessionTerm / 2) // b is gone
	renew("a", renew("a", a.Number).Number)
	if got := renew("c", 0); got.Nodes != 2 || got.Rank != 1 {
		f.Fatalf("the third node when one is gone and the other made room: %+v", got)
	}
}

// borrows has a node borrow units of a rate from others.
func borrows(f *fixture) {
	l := tenAnHour()
	l.Window = authz.WindowMinute
	for node, has := range map[quota.NodeID]int64{"a": 100, "b": 3, "c": 4, "d": 100} {
		defer f.ledger.Join(node, peer{lend: func(r quota.RateRequest) int64 {
			if node == "a" {
				f.Errorf("a node is asked by itself")
			}
			if r.Bucket != bucketFor(l) || r.Limit.Units != l.Units || !r.Start.Equal(f.clock.Now()) {
				f.Errorf("asked for %+v", r)
			}
			return min(r.Units, has)
		}})()
	}
	r := quota.RateRequest{Bucket: bucketFor(l), Limit: l, Start: f.clock.Now(), Units: 9}
	if got := f.ledger.Borrow(f.Ctx(), "a", r); got != 9 {
		f.Fatalf("%d borrowed, want 9", got)
	}
	r.Units = 1000
	if got := f.ledger.Borrow(f.Ctx(), "a", r); got != 107 {
		f.Fatalf("%d borrowed, want all that there is, 107", got)
	}
}
