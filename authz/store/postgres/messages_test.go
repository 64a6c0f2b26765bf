package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// wire carries notifications between processes, as a database would.
type wire struct {
	mu      sync.Mutex
	nodes   []*testNode
	gone    map[quota.NodeID]bool // hears nothing, and nobody hears it
	copies  int                   // how often each notification arrives
	letters int
	broken  bool
	slow    time.Duration // for each transaction
}

// testNode is a process with one node, and the Peer of that.
type testNode struct {
	id    quota.NodeID
	m     *messages
	leave func()
	wire  *wire

	given   atomic.Int64 // calls of GiveBack
	lent    atomic.Int64 // calls of Lend
	units   atomic.Int64 // it can lend
	give    func(ctx context.Context)
	buckets chan quota.Bucket
}

func (n *testNode) GiveBack(ctx context.Context, b quota.Bucket) {
	n.given.Add(1)
	select {
	case n.buckets <- b:
	default:
	}
	if n.give != nil {
		n.give(ctx)
	}
}

func (n *testNode) Lend(r quota.RateRequest) int64 {
	n.lent.Add(1)
	got := min(r.Units, n.units.Load())
	n.units.Add(-got)
	return got
}

func (w *wire) notify(from quota.NodeID) func(context.Context, []string, []string) error {
	return func(_ context.Context, channels, payloads []string) error {
		time.Sleep(w.slow)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.broken {
			return fmt.Errorf("no database")
		}
		for i, channel := range channels {
			w.letters++
			if len(payloads[i]) > maxPayload {
				return fmt.Errorf("a payload of %d bytes", len(payloads[i]))
			}
			for _, n := range w.nodes {
				if hears := channel == nodesChannel || channel == n.m.out.inbox; !hears || w.gone[from] || w.gone[n.id] {
					continue
				}
				for range 1 + w.copies {
					n.m.receive(channel, payloads[i])
				}
			}
		}
		return nil
	}
}

func (w *wire) others(node quota.NodeID) []quota.NodeID {
	var out []quota.NodeID
	for _, n := range w.nodes {
		if n.id != node {
			out = append(out, n.id)
		}
	}
	return out
}

// newNodes makes nodes that are called a, b, c...
func newNodes(t *testing.T, count int) (*wire, []*testNode) {
	w := &wire{gone: make(map[quota.NodeID]bool)}
	for i := range count {
		n := &testNode{id: quota.NodeID(rune('a' + i)), wire: w, buckets: make(chan quota.Bucket, 1)}
		n.m = newMessages(newOutbox(newInbox(), w.notify(n.id)), w.others, func() bool { return true })
		n.leave = n.m.Join(n.id, n)
		w.nodes = append(w.nodes, n)
		t.Cleanup(n.m.close)
	}
	return w, w.nodes
}

func testBucket(holder string) quota.Bucket {
	l := authz.Limit{Name: "burst", Units: 100, Unit: authz.UnitRequests, Window: authz.WindowSecond, Per: authz.PerKey}
	return quota.BucketOf(&l, authz.Holder{Key: holder})
}

func testRate(units int64) quota.RateRequest {
	b := testBucket("acme")
	l := authz.Limit{Name: "burst", Units: 100, Unit: authz.UnitRequests, Window: authz.WindowSecond, Per: authz.PerKey}
	return quota.RateRequest{Bucket: b, Limit: l, Start: time.Unix(1700000000, 0).UTC(), Units: units}
}

// took runs f and returns how long it took.
func took(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

// within is a context like that of a check.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestMessages_Recall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := newNodes(t, 3)
		nodes[2].give = func(context.Context) { time.Sleep(20 * time.Millisecond) } // waits for the ledger
		b := testBucket("\x00\xff\"" + strings.Repeat("ü", 1000))
		if d := took(func() { nodes[0].m.Recall(within(t, 250*time.Millisecond), "a", b) }); d != 20*time.Millisecond {
			t.Errorf("recall took %s, want as long as the slower node takes", d)
		}
		if nodes[0].given.Load() != 0 || nodes[1].given.Load() != 1 || nodes[2].given.Load() != 1 {
			t.Errorf("gave back: %d, %d, %d", nodes[0].given.Load(), nodes[1].given.Load(), nodes[2].given.Load())
		}
		if got := <-nodes[1].buckets; got != b {
			t.Errorf("asked about %+v, want %+v", got, b)
		}
	})
}

// The nodes of one process need no messages.
func TestMessages_SameProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := newNodes(t, 2)
		second := &testNode{id: "second", buckets: make(chan quota.Bucket, 1)}
		second.units.Store(30)
		leave := nodes[0].m.Join(second.id, second)
		nodes[1].units.Store(30)
		w.broken = true
		nodes[0].m.Recall(within(t, time.Second), "a", testBucket("acme"))
		if got := nodes[0].m.Borrow(within(t, time.Second), "a", testRate(20)); got != 20 || second.given.Load() != 1 {
			t.Errorf("without a database: borrowed %d, gave back %d times", got, second.given.Load())
		}
		w.broken = false
		nodes[0].m.Recall(within(t, time.Second), "a", testBucket("acme"))
		if got := nodes[0].m.Borrow(within(t, time.Second), "a", testRate(20)); got != 20 || second.given.Load() != 2 || nodes[1].given.Load() != 1 {
			t.Errorf("borrowed %d, gave back %d and %d times", got, second.given.Load(), nodes[1].given.Load())
		}
		leave()
		nodes[0].m.Recall(within(t, time.Second), "a", testBucket("acme"))
		if second.given.Load() != 2 {
			t.Error("a node that has left was asked")
		}
	})
}

// A node that is gone without a goodbye is in the list of members for up to a minute.
func TestMessages_RecallWithLostNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := newNodes(t, 3)
		w.gone["c"] = true
		recall := func() time.Duration {
			return took(func() { nodes[0].m.Recall(within(t, 250*time.Millisecond), "a", testBucket("acme")) })
		}
		if d := recall(); d != 125*time.Millisecond {
			t.Errorf("the first recall took %s, want half of the time that was left", d)
		}
		if d := recall(); d != 0 {
			t.Errorf("the second recall took %s: it waited for the node again", d)
		}
		if n := nodes[1].given.Load(); n != 2 {
			t.Errorf("the other node gave back %d times, want 2", n)
		}
		w.gone["c"] = false // it was away for a moment only
		d := recall()
		synctest.Wait()
		if d != 0 || nodes[2].given.Load() != 1 {
			t.Errorf("after it is back: %s, asked %d times", d, nodes[2].given.Load())
		}
		nodes[2].give = func(context.Context) { time.Sleep(10 * time.Millisecond) }
		if d := recall(); d != 10*time.Millisecond {
			t.Errorf("a node that was heard of again: %s, want 10ms", d)
		}
	})
}

func TestMessages_RecallEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := newNodes(t, 2)
		nodes[1].give = func(ctx context.Context) { <-ctx.Done() }
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(30*time.Millisecond, cancel)
		if d := took(func() { nodes[0].m.Recall(ctx, "a", testBucket("acme")) }); d != 30*time.Millisecond {
			t.Errorf("recall took %s after its context ended at 30ms", d)
		}
		if _, got := nodes[0].m.split("a"); len(got) != 1 {
			t.Error("a node counts as silent because the caller went away")
		}
		if d := took(func() { nodes[0].m.Recall(t.Context(), "a", testBucket("acme")) }); d != maxWait {
			t.Errorf("recall without a deadline took %s, want %s", d, maxWait)
		}
	})
}

func TestMessages_Borrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := newNodes(t, 4)
		nodes[1].units.Store(3)
		nodes[2].units.Store(100)
		if got := nodes[0].m.Borrow(within(t, 250*time.Millisecond), "a", testRate(50)); got != 50 {
			t.Errorf("borrowed %d, want 50", got)
		}
		if left := nodes[1].units.Load() + nodes[2].units.Load(); left != 53 {
			t.Errorf("%d are left, want 53", left)
		}
		if got := nodes[0].m.Borrow(within(t, 250*time.Millisecond), "a", testRate(80)); got != 53 {
			t.Errorf("borrowed %d, want all that is left", got)
		}
		if got := nodes[0].m.Borrow(within(t, 250*time.Millisecond), "a", testRate(1)); got != 0 {
			t.Errorf("borrowed %d of nothing", got)
		}
	})
}

// The node that lent last is asked first: it is the one with few callers.
func TestMessages_BorrowAsksWhoLentLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := newNodes(t, 5)
		nodes[3].units.Store(100)
		nodes[0].m.Borrow(within(t, time.Second), "a", testRate(1))
		asked := func() (n int64) {
			for _, other := range nodes {
				n += other.lent.Load()
			}
			return n
		}
		before := asked()
		for range 10 {
			nodes[0].m.Borrow(within(t, time.Second), "a", testRate(1))
		}
		if n := asked() - before; n != 10 {
			t.Errorf("10 questions were put %d times", n)
		}
	})
}

func TestMessages_BorrowWithLostNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := newNodes(t, 3)
		w.gone["b"] = true
		nodes[1].units.Store(100)
		nodes[2].units.Store(100)
		if d := took(func() {
			if got := nodes[0].m.Borrow(within(t, 250*time.Millisecond), "a", testRate(10)); got != 10 {
				t.Errorf("borrowed %d, want 10", got)
			}
		}); d > 125*time.Millisecond/2 {
			t.Errorf("borrowing took %s", d)
		}
		if n := nodes[1].units.Load(); n != 100 {
			t.Errorf("the lost node has %d units left", n)
		}
	})
}

// What arrives twice is answered once: units that are lent a second time would be lost until the period ends.
func TestMessages_Duplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := newNodes(t, 3)
		w.copies = 2
		nodes[1].units.Store(30)
		nodes[2].units.Store(30)
		for range 6 {
			if got := nodes[0].m.Borrow(within(t, 250*time.Millisecond), "a", testRate(10)); got != 10 {
				t.Errorf("borrowed %d, want 10", got)
			}
			nodes[0].m.Recall(within(t, 250*time.Millisecond), "a", testBucket("acme"))
		}
		synctest.Wait()
		if n := nodes[1].given.Load() + nodes[2].given.Load(); n != 12 {
			t.Errorf("gave back %d times, want 12", n)
		}
		if n := nodes[1].units.Load() + nodes[2].units.Load(); n != 0 {
			t.Errorf("%d units are left, want 0", n)
		}
	})
}

func TestMessages_LeavingNodeDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := newNodes(t, 2)
		begun := make(chan struct{})
		nodes[1].give = func(context.Context) { close(begun); time.Sleep(50 * time.Millisecond) }
		var recalled time.Duration
		done := make(chan struct{})
		go func() {
			defer close(done)
			recalled = took(func() { nodes[0].m.Recall(within(t, 250*time.Millisecond), "a", testBucket("acme")) })
		}()
		<-begun
		nodes[1].leave()
		<-done
		if recalled != 125*time.Millisecond {
			t.Errorf("recall took %s: a node answered that had left", recalled)
		}
	})
}

func TestMessages_Goodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := newNodes(t, 2)
		nodes[1].units.Store(100)
		nodes[1].leave()
		nodes[1].leave() // has no effect
		synctest.Wait()
		if d := took(func() {
			nodes[0].m.Recall(within(t, 250*time.Millisecond), "a", testBucket("acme"))
			if got := nodes[0].m.Borrow(within(t, 250*time.Millisecond), "a", testRate(1)); got != 0 {
				t.Errorf("borrowed %d of a node that has left", got)
			}
		}); d != 0 {
			t.Errorf("a node that said goodbye was waited for: %s", d)
		}
	})
}

// A flood of questions is answered as far as there are hands, and holds up nobody else.
func TestMessages_Flood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := newNodes(t, 2)
		nodes[1].give = func(ctx context.Context) { <-ctx.Done() }
		nodes[1].units.Store(1)
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() { nodes[0].m.Recall(within(t, time.Second), "a", testBucket(fmt.Sprint(i))) })
		}
		time.Sleep(time.Millisecond)
		if d := took(func() {
			if got := nodes[0].m.Borrow(within(t, time.Second), "a", testRate(1)); got != 1 {
				t.Errorf("borrowed %d during a flood of recalls", got)
			}
		}); d > time.Millisecond {
			t.Errorf("borrowing took %s during a flood of recalls", d)
		}
		wg.Wait()
		if n := nodes[1].given.Load(); n != maxRecalls {
			t.Errorf("%d recalls were answered at once, want %d", n, maxRecalls)
		}
	})
}

func TestMessages_ShareNotifications(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := newNodes(t, 2)
		w.slow = time.Millisecond
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() { nodes[0].m.Recall(within(t, time.Second), "a", testBucket(fmt.Sprint(i))) })
		}
		wg.Wait()
		if nodes[1].given.Load() != 60 || w.letters > 12 {
			t.Errorf("60 recalls: %d were answered, in %d notifications", nodes[1].given.Load(), w.letters)
		}
	})
}

func TestMessages_Unsendable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := newNodes(t, 2)
		nodes[1].units.Store(100)
		ask := func(why string, holder string) {
			t.Helper()
			r := testRate(1)
			r.Bucket.Holder = holder
			if d := took(func() {
				nodes[0].m.Recall(within(t, time.Second), "a", r.Bucket)
				if got := nodes[0].m.Borrow(within(t, time.Second), "a", r); got != 0 {
					t.Errorf("%s: borrowed %d", why, got)
				}
			}); d != 0 {
				t.Errorf("%s: waited %s", why, d)
			}
		}
		ask("a name that fits into no notification", strings.Repeat("x", maxPayload))
		w.broken = true
		ask("no database", "acme")
		w.broken = false
		nodes[0].m.listening = func() bool { return false }
		ask("no answers can arrive", "acme")
		if n := nodes[1].given.Load() + nodes[1].lent.Load(); n != 0 {
			t.Errorf("%d questions arrived", n)
		}
	})
}

func TestMessages_ReceiveNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := newNodes(t, 1)
		inbox := newInbox()
		for _, payload := range []string{
			"", "{", "null", "[]", `{"i":"tollkeeper_node_0123456789abcdef","m":[null,{}]}`, `{"i":"pg_temp; --","m":[{"v":"recall","n":1,"f":"z"}]}`,
			opening(inbox) + `{"v":"recall","n":1,"f":"z","b":"AAAA","w":100}` + closing,
			opening(inbox) + `{"v":"lend","n":2,"f":"z","u":-1,"w":100}` + closing,
			opening(inbox) + `{"v":"recall","n":3,"f":"z","w":99999999}` + closing,
			opening(inbox) + `{"v":"reply","n":3,"f":"z","u":5}` + closing,
			opening(inbox) + `{"v":"another","n":4,"f":"z"}` + closing,
		} {
			nodes[0].m.receive(nodesChannel, payload)
		}
		synctest.Wait()
		if n := nodes[0].given.Load() + nodes[0].lent.Load(); n != 0 {
			t.Errorf("%d questions were understood", n)
		}
	})
}

func TestPack(t *testing.T) {
	var bodies [][]byte
	for i := range 500 {
		bodies = append(bodies, fmt.Appendf(nil, `{"v":"reply","n":%d,"f":%q}`, i+1, strings.Repeat("n", i)))
	}
	inbox, got := newInbox(), []uint64{}
	letters := pack(inbox, bodies)
	for _, payload := range letters {
		if len(payload) > maxPayload {
			t.Errorf("a payload of %d bytes", len(payload))
		}
		l, err := openLetter(payload)
		if err != nil || l.Inbox != inbox {
			t.Fatalf("%v: %q", err, payload)
		}
		for _, m := range l.Messages {
			got = append(got, m.Number)
		}
	}
	if !slices.IsSorted(got) || len(got) != len(bodies) || len(letters) > 25 {
		t.Errorf("%d messages in %d letters", len(got), len(letters))
	}
	if len(pack(inbox, nil)) != 0 {
		t.Error("a letter without a message")
	}
}
