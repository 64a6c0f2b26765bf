package faulttest

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

// Each caller is charged to both.
var limits = []authz.Limit{
	{Name: "monthly", Units: units, Unit: authz.UnitRequests, Window: authz.WindowMonth, Per: authz.PerKey},
	{Name: "credits", Units: units, Unit: "credits", Window: authz.WindowNone, Per: authz.PerAccount},
}

const (
	units    = 20_000 // of each caller; more than are used before a test drains them
	busy     = 3      // callers who are known to both nodes
	pace     = 5 * time.Millisecond
	deadline = 250 * time.Millisecond // of a check
)

// rig is two nodes on one database, which a test breaks. On each node the busy callers come all the time, one caller who was never seen
// before after the other, and an operator who credits and makes accounts.
type rig struct {
	t             *testing.T
	nodes         []*node
	moved         atomic.Int64 // how far the clock of nodes and database is ahead, in nanoseconds
	databaseMoved atomic.Int64 // the same of the database alone, where a test says so
	wg            sync.WaitGroup
	stop          context.CancelFunc

	draining atomic.Bool
	mu       sync.Mutex
	began    time.Time
	seen     map[string]int
	allowed  map[string]int64 // by caller
	acked    map[string]bool  // credits and accounts that were sent: whether they were acknowledged
	logs     strings.Builder
}

// node is one node. Its database and its dispenser are those of a server.
type node struct {
	name  string
	db    *postgres.DB
	d     *dispenser.Dispenser
	fresh atomic.Int64 // when the latest request of a new caller was sent that was allowed, in Unix nanoseconds
	wrote atomic.Int64 // the same of the latest write
}

// startServer starts a server with a database for the nodes, and returns the way to it.
func startServer(t *testing.T, settings ...string) (s *pgtest.Server, url string) {
	t.Helper()
	s, err := pgtest.Start(pgtest.Options{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	closed(t, s)
	must(t, s.CreateDatabase("tollkeeper"))
	url = s.URL("tollkeeper")
	_, _, err = postgres.Migrate(t.Context(), postgres.Options{URL: url})
	must(t, err)
	return s, url
}

func closed(t *testing.T, s *pgtest.Server) {
	t.Cleanup(func() {
		if t.Failed() {
			lines := strings.Split(strings.TrimSpace(s.Log()), "\n")
			t.Logf("PostgreSQL wrote:\n%s", strings.Join(lines[max(0, len(lines)-10):], "\n"))
		}
		_ = s.Close()
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newRig(t *testing.T) *rig {
	return &rig{t: t, seen: make(map[string]int), allowed: make(map[string]int64), acked: make(map[string]bool)}
}

// start starts the nodes, waits until both serve, and begins a phase.
func (r *rig) start(o postgres.Options) {
	t := r.t
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	o.Logger = slog.New(slog.NewTextHandler(&lockedWriter{r: r}, nil))
	for _, name := range []string{"a", "b"} {
		db, err := postgres.Open(t.Context(), o)
		must(t, err)
		n := &node{name: name, db: db, d: dispenser.New(db.Ledger(), quota.NodeID(name), r.now)}
		r.nodes = append(r.nodes, n)
		db.Keys()
		r.wg.Go(func() { n.d.Run(ctx) })
		for i := range busy {
			r.wg.Go(func() { r.come(ctx, n, fmt.Sprint("busy-", i)) })
		}
		r.wg.Go(func() { r.comeOnce(ctx, n) })
		r.wg.Go(func() { r.write(ctx, n) })
	}
	t.Cleanup(r.close)
	r.recovered()
	r.phase("")
}

// now is the clock of the nodes. With Options.Now it is the database's too.
func (r *rig) now() time.Time { return time.Now().Add(time.Duration(r.moved.Load())) }

type lockedWriter struct{ r *rig }

func (w *lockedWriter) Write(b []byte) (int, error) {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	return w.r.logs.Write(b)
}

// come is a caller who is known.
func (r *rig) come(ctx context.Context, n *node, caller string) {
	for ctx.Err() == nil {
		if state := r.ask(ctx, n, caller, "known"); state != authz.QuotaOK || !r.draining.Load() {
			time.Sleep(pace)
		}
	}
}

// comeOnce is callers who come once.
func (r *rig) comeOnce(ctx context.Context, n *node) {
	for i := 0; ctx.Err() == nil; i++ {
		sent := time.Now().UnixNano()
		if r.ask(ctx, n, fmt.Sprintf("new-%s-%d", n.name, i), "new") == authz.QuotaOK {
			n.fresh.Store(sent)
		}
		time.Sleep(4 * pace)
	}
}

// ask reserves one unit of each limit, as a check does, and counts the answer.
func (r *rig) ask(ctx context.Context, n *node, caller, kind string) authz.QuotaState {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	var reservation authz.Reservation
	facts := make([]authz.QuotaFact, len(limits))
	h := authz.Holder{Key: "key-" + caller, Account: caller}
	state := authz.QuotaOK
	if !n.d.Reserve(ctx, h, limits, authz.Charge{"monthly": 1, "credits": 1}, facts, &reservation) {
		state = authz.QuotaExhausted
		for _, f := range facts {
			if f.State == authz.QuotaUnavailable {
				state = f.State
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen[kind+" "+string(state)]++; state == authz.QuotaOK {
		r.allowed[caller]++
	}
	return state
}

// write credits a caller, and makes accounts.
func (r *rig) write(ctx context.Context, n *node) {
	for i := 0; ctx.Err() == nil; i++ {
		sent := time.Now().UnixNano()
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		var err error
		id := fmt.Sprintf("%s-%d", n.name, i)
		if i%2 == 0 {
			id = "credit-" + id
			err = n.credit(short, id)
		} else {
			id = "account-" + id
			_, err = n.db.Keys().CreateAccount(short, apikey.Account{ID: id})
		}
		cancel()
		if err == nil {
			n.wrote.Store(sent)
		}
		r.mu.Lock()
		r.acked[id] = err == nil
		r.seen[map[bool]string{true: "writes acknowledged", false: "writes refused"}[err == nil]]++
		r.mu.Unlock()
		time.Sleep(8 * pace)
	}
}

// credited is the caller who is credited, one unit at a time.
var credited = quota.BucketOf(&limits[1], authz.Holder{Account: "credited"})

func (n *node) credit(ctx context.Context, id string) error {
	_, err := n.db.Ledger().Credit(ctx, quota.CreditRequest{ID: id, Bucket: credited, Limit: limits[1], Units: 1})
	return err
}

// phase begins a phase, and logs what callers saw in the one before.
func (r *rig) phase(before string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if before != "" {
		r.t.Logf("%s, %v: %s", before, time.Since(r.began).Round(10*time.Millisecond), r.seenLocked())
	}
	r.began, r.seen = time.Now(), make(map[string]int)
}

func (r *rig) seenLocked() string {
	share := func(of string) string {
		ok, all := r.seen[of+" ok"], 0
		for name, n := range r.seen {
			if strings.HasPrefix(name, of+" ") {
				all += n
			}
		}
		return fmt.Sprintf("%d of %d requests of %s callers allowed", ok, all, of)
	}
	return fmt.Sprintf("%s, %s; %d writes acknowledged, %d not", share("known"), share("new"), r.seen["writes acknowledged"], r.seen["writes refused"])
}

// mended waits until all nodes serve, and logs for how long.
func (r *rig) mended() {
	r.t.Helper()
	r.t.Logf("all serve again after %v", r.recovered().Round(time.Millisecond))
}

// felt waits until new callers on both nodes have met a fault, and the operators too.
func (r *rig) felt() {
	r.t.Helper()
	unavailable, refused := r.count("new unavailable"), r.count("writes refused")
	r.await("the fault is felt", func() bool {
		return r.count("new unavailable") > unavailable+20 && r.count("writes refused") > refused+4
	})
}

// recovered waits until both nodes grant to callers who are new, and take writes, and returns for how long.
func (r *rig) recovered() time.Duration {
	r.t.Helper()
	began := time.Now()
	after := began.UnixNano()
	r.await("all nodes serve", func() bool {
		for _, n := range r.nodes {
			if n.fresh.Load() < after || n.wrote.Load() < after {
				return false
			}
		}
		return true
	})
	return time.Since(began)
}

// await polls until a condition holds.
func (r *rig) await(what string, f func() bool) {
	r.t.Helper()
	for end := time.Now().Add(40 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("gave up waiting until %s: %s\n%s", what, r.seenLocked(), r.logs.String())
		}
	}
}

// count is how often callers saw something in this phase.
func (r *rig) count(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[what]
}

// drain has the busy callers use up what they have. If whole is true, each of them gets all of it: nobody died who held any.
func (r *rig) drain(whole bool) {
	r.t.Helper()
	r.draining.Store(true)
	refused := r.count("known exhausted")
	all := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for i := range busy {
			if r.allowed[fmt.Sprint("busy-", i)] < units {
				return !whole && r.seen["known exhausted"] > refused+5000
			}
		}
		return true
	}
	r.await("all is used up", all)
	r.mu.Lock()
	defer r.mu.Unlock()
	for caller, n := range r.allowed {
		if n > units {
			r.t.Errorf("%s was allowed %d of %d", caller, n, units)
		}
	}
}

// close ends the nodes, if settle did not.
func (r *rig) close() {
	r.stop()
	r.wg.Wait()
	for _, n := range r.nodes {
		_ = n.db.Close()
	}
}

// settle uses up everything, stops the nodes in good order, and checks the books and the acknowledged writes. After lost commits, writes
// may be lost too.
func (r *rig) settle(lost bool) {
	r.t.Helper()
	r.drain(true)
	ctx := r.t.Context()
	r.stop()
	r.wg.Wait()
	for _, n := range r.nodes {
		if err := n.d.Close(ctx); err != nil {
			r.t.Errorf("node %s: %v", n.name, err)
		}
	}
	l := r.nodes[0].db.Ledger()
	must(r.t, l.Check(ctx))
	for i := range busy {
		h := authz.Holder{Key: fmt.Sprint("key-busy-", i), Account: fmt.Sprint("busy-", i)}
		for _, limit := range limits {
			b, err := l.Balance(ctx, quota.BucketOf(&limit, h), limit)
			must(r.t, err)
			if b.Spent != units || b.Stranded != 0 || len(b.Outstanding) != 0 {
				r.t.Errorf("all %d units were used: %+v", units, b)
			}
		}
	}
	if !lost {
		r.verifyWrites(ctx)
	}
}

// verifyWrites looks for all acknowledged writes, and sends the credits again that were not.
func (r *rig) verifyWrites(ctx context.Context) {
	r.t.Helper()
	n := r.nodes[0]
	var credits, known int64
	for id, acked := range r.acked {
		if strings.HasPrefix(id, "credit-") {
			must(r.t, n.credit(ctx, id))
			credits++
			continue
		}
		if _, err := n.db.Keys().Account(ctx, id); err != nil && acked {
			r.t.Errorf("account %s was acknowledged: %v", id, err)
		}
		known++
	}
	b, err := n.db.Ledger().Balance(ctx, credited, limits[1])
	if must(r.t, err); b.Allowance != units+credits {
		r.t.Errorf("%d credits after all were sent again, want %d", b.Allowance-units, credits)
	}
}
