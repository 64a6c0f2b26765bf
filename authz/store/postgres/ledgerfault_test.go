package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

// inTransaction runs a statement in a transaction of somebody else, which ends at the latest with the test.
func inTransaction(t *testing.T, url, sql string) (commit func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err == nil {
		_, err = conn.Exec(t.Context(), "BEGIN; "+sql)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return func() {
		if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
			t.Error(err)
		}
	}
}

func renew(t testing.TB, s *Ledger, node quota.NodeID) quota.Session {
	t.Helper()
	session, err := s.Renew(t.Context(), node, quota.Standing{})
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func leases(t testing.TB, s *Ledger, a quotatest.Ask) quota.Lease {
	t.Helper()
	lease, err := a.Send(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

// TestLedger_LockedHolder has somebody else hold the record of a holder, as a node does that serves it too, or a session that was forgotten.
func TestLedger_LockedHolder(t *testing.T) {
	for name, sql := range map[string]string{
		"locked":  "SELECT FROM tollkeeper.holders WHERE holder = 'locked' FOR UPDATE",
		"changed": "UPDATE tollkeeper.holders SET record = record WHERE holder = 'locked'",
	} {
		t.Run(name, func(t *testing.T) {
			url, l := migrated(t), hourly(100)
			s := ledgerOf(t, Options{URL: url})
			renew(t, s, "a")
			leases(t, s, leaseFor("a", "locked", 1, l, 1))
			commit := inTransaction(t, url, sql)
			done := make(chan error)
			go func() {
				got, err := leaseFor("a", "locked", 2, l, 2).Send(t.Context(), s)
				if err == nil && got.Held != 3 {
					err = fmt.Errorf("%+v", got)
				}
				done <- err
			}()
			waitUntil(t, "the holder has a lane of its own", func() bool {
				s.lanes.mu.Lock()
				defer s.lanes.mu.Unlock()
				return len(s.lanes.hot) == 1
			})
			for i := range 20 {
				leases(t, s, leaseFor("a", fmt.Sprint("free-", i/2), uint64(i)+3, l, 1))
			}
			select {
			case err := <-done:
				t.Fatalf("answered while the record is locked: %v", err)
			default:
			}
			commit()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLedger_HolderMadeByOthers has another node make the first record of a holder between the reading and the writing of a verb.
func TestLedger_HolderMadeByOthers(t *testing.T) {
	address, l := migrated(t), hourly(10)
	s, other := ledgerOf(t, Options{URL: address}), ledgerOf(t, Options{URL: address})
	renew(t, s, "a")
	renew(t, other, "b")
	var next atomic.Pointer[string] // the holder to make
	s.alter = func(*state) {
		if holder := next.Swap(nil); holder != nil {
			leases(t, other, leaseFor("b", *holder, 1, l, 7))
		}
	}
	made := func(holder string) quota.Bucket {
		next.Store(&holder)
		return quota.Bucket{Per: l.Per, Holder: holder, Limit: l.Name}
	}
	made("leased")
	if got := leases(t, s, leaseFor("a", "leased", 1, l, 7)); got.Granted != 3 || got.Elsewhere != 7 {
		t.Errorf("%+v", got)
	}
	settle := quota.SettleRequest{ID: "s", Bucket: made("settled"), Limit: l, Period: quota.PeriodAt(&l, time.Now()), Actual: 1}
	if got, err := s.Settle(t.Context(), settle); err != nil || got.Charged != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.Balance(t.Context(), settle.Bucket, l); err != nil || got.Granted != 8 {
		t.Errorf("%+v, %v", got, err)
	}
	credit := quota.CreditRequest{ID: "c", Bucket: made("credited"), Limit: l, Units: 5}
	if got, err := s.Credit(t.Context(), credit); err != nil || got.Allowance != 15 || got.Granted != 7 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestLedger_SessionRenewedMeanwhile has a node that is overdue be renewed while another one asks for what it holds. As long as that is not
// decided, nobody may have its units.
func TestLedger_SessionRenewedMeanwhile(t *testing.T) {
	address, clock := migrated(t), quotatest.NewClock()
	s := ledgerOf(t, Options{URL: address, Now: clock.Now})
	l := authz.Limit{Name: "credits", Units: 10, Window: authz.WindowNone, Per: authz.PerKey, RefundOnCrash: true}
	renew(t, s, "a")
	leases(t, s, leaseFor("a", "h", 1, l, 8))
	clock.Advance(quota.SessionTerm / 2)
	renew(t, s, "b")
	clock.Advance(quota.SessionTerm/2 + time.Second)
	until := clock.Now().Add(quota.SessionTerm / 2).Format(time.RFC3339Nano)
	commit := inTransaction(t, address, `UPDATE tollkeeper.roll SET content = jsonb_set(content, '{members,a,until}', '"`+until+`"')`)
	got := make(chan quota.Lease, 1)
	go func() {
		lease, err := leaseFor("b", "h", 1, l, 10).Send(t.Context(), s)
		if err != nil {
			t.Error(err)
		}
		got <- lease
	}()
	waitUntil(t, "it is decided, or waits for the roll", func() bool { return len(got) > 0 || waits(t, s.db) })
	if len(got) > 0 {
		t.Errorf("decided while the session may be renewed: %+v", <-got)
		return
	}
	commit()
	if lease := <-got; lease.Granted != 2 || lease.Elsewhere != 8 {
		t.Errorf("%+v", lease)
	}
}

// waits reports whether a transaction waits for a lock.
func waits(t *testing.T, db *DB) (yes bool) {
	const query = `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`
	if err := db.read(t.Context(), func(ctx context.Context, conn *pgx.Conn) error { return conn.QueryRow(ctx, query).Scan(&yes) }); err != nil {
		t.Fatal(err)
	}
	return yes
}

// TestLedger_CallerGone has a caller give up during the transaction, and use the memory of its request for something else.
func TestLedger_CallerGone(t *testing.T) {
	l := hourly(100)
	s := ledgerOf(t, Options{URL: migrated(t)})
	renew(t, s, "a")
	reading, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.alter = func(*state) {
		once.Do(func() {
			close(reading)
			<-goOn
		})
	}
	ctx, giveUp := context.WithCancel(t.Context())
	go func() {
		<-reading
		giveUp()
	}()
	rs := []quota.LeaseRequest{leaseFor("a", "h", 1, l, 5).Request()}
	if _, err := s.Lease(ctx, rs); err == nil {
		t.Error("no error")
	}
	rs[0].Parts[0].Want = 50
	close(goOn)
	bucket := quota.Bucket{Per: l.Per, Holder: "h", Limit: l.Name}
	var got quota.Balance
	waitUntil(t, "the transaction has ended", func() (done bool) {
		var err error
		got, err = s.Balance(t.Context(), bucket, l)
		return err != nil || got.Granted > 0
	})
	if got.Granted != 5 {
		t.Errorf("%+v", got)
	}
}

// TestLedger_OneBadHolder has requests that cannot be kept refused, and none beside them in the batch.
func TestLedger_OneBadHolder(t *testing.T) {
	url, l := migrated(t), hourly(10)
	s := open(t, Options{URL: url}).Ledger()
	renew(t, s, "a")
	leases(t, s, leaseFor("a", "damaged", 1, l, 1))
	run(t, url, `UPDATE tollkeeper.holders SET record = '\x01ff' WHERE holder = 'damaged'`)
	var rs []quota.LeaseRequest
	for i, holder := range []string{"good", strings.Repeat("x", maxHolder+1), strings.Repeat("y", maxHolder), "damaged", "\x00\xff", "good too"} {
		rs = append(rs, leaseFor("a", holder, uint64(i)+2, l, 1).Request())
	}
	rs = append(rs, leaseFor("a", "good", 9, l, 1).Request())
	rs[6].Holder.Per = "\x00"
	answers, err := s.Lease(t.Context(), rs)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []authz.Kind{"", authz.KindInvalid, "", authz.KindConflict, "", "", authz.KindInvalid} {
		if got := answers[i].Err; (got != nil) != (want != "") || got != nil && authz.KindOf(got) != want {
			t.Errorf("request %d: %v, want %q", i, got, want)
		}
	}
	damaged := quota.Bucket{Per: l.Per, Holder: "damaged", Limit: l.Name}
	_, settling := s.Settle(t.Context(), quota.SettleRequest{ID: "s", Bucket: damaged, Limit: l})
	_, crediting := s.Credit(t.Context(), quota.CreditRequest{ID: "c", Bucket: damaged, Limit: l, Units: 1})
	_, reading := s.Balance(t.Context(), damaged, l)
	if settling == nil || crediting == nil || reading == nil {
		t.Errorf("a damaged record: settle %v, credit %v, balance %v", settling, crediting, reading)
	}
	if _, err := s.Settle(t.Context(), quota.SettleRequest{ID: strings.Repeat("i", maxLedgerID+1), Limit: l}); authz.KindOf(err) != authz.KindInvalid {
		t.Errorf("a long id: %v", err)
	}
	if n, err := s.Forget(t.Context()); n != 0 || err == nil {
		t.Errorf("%d forgotten, %v: a damaged record is not passed over, or not named", n, err)
	}
}

// TestLedger_AnswerLost cuts the connection at each message of a verb, before the server has it and after it has carried it out. The verb
// takes place once, and is answered.
func TestLedger_AnswerLost(t *testing.T) {
	address, l := migrated(t)+"&default_query_exec_mode=exec", hourly(1000)
	proxy := pgtest.NewProxy(t, pgtest.Shared(t))
	s := ledgerOf(t, Options{URL: proxy.URL(address)})
	bucket := quota.Bucket{Per: l.Per, Holder: "h", Limit: l.Name}
	renew(t, s, "a")
	n, want := 0, quota.Balance{}
	verbs := map[string]func(){
		"lease": func() {
			if got := leases(t, s, leaseFor("a", "h", uint64(n), l, 5)); got.Granted != 5 {
				t.Errorf("%+v", got)
			}
			want.Granted += 5
		},
		"settle": func() {
			r := quota.SettleRequest{ID: fmt.Sprint(n), Bucket: bucket, Limit: l, Period: quota.PeriodAt(&l, time.Now()), Actual: 1}
			if got, err := s.Settle(t.Context(), r); err != nil || got.Charged != 1 {
				t.Errorf("%+v, %v", got, err)
			}
			want.Granted++
		},
		"credit": func() {
			if _, err := s.Credit(t.Context(), quota.CreditRequest{ID: fmt.Sprint(n), Bucket: bucket, Limit: l, Units: 7}); err != nil {
				t.Error(err)
			}
			want.Allowance += 7
		},
		"renew": func() { renew(t, s, "a") },
	}
	want.Allowance = l.Units
	for _, at := range []string{"begin isolation", "commit\x00"} {
		for _, pass := range []bool{false, true} {
			for name, verb := range verbs {
				n++
				cuts := proxy.Cuts()
				proxy.Cut(at, pass)
				verb()
				got, err := s.Balance(t.Context(), bucket, l)
				if err != nil || got.Granted != want.Granted || got.Allowance != want.Allowance || proxy.Cuts() != cuts+1 {
					t.Errorf("%s cut at %q (passed: %v), %d cuts: %+v, %v", name, at, pass, proxy.Cuts()-cuts, got, err)
				}
			}
		}
	}
}

// TestLedger_RepetitionWrites has a verb that took place before write all the same, so that its answer waits for the standby that the first
// transaction may not have waited for.
func TestLedger_RepetitionWrites(t *testing.T) {
	l := hourly(1000)
	s := ledgerOf(t, Options{URL: migrated(t)})
	renew(t, s, "a")
	bucket := quota.Bucket{Per: l.Per, Holder: "h", Limit: l.Name}
	writer := func() (xid string) {
		if err := s.db.read(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "SELECT xmin::text FROM tollkeeper.holders").Scan(&xid)
		}); err != nil {
			t.Fatal(err)
		}
		return xid
	}
	for name, verb := range map[string]func() error{
		"lease": func() error {
			_, err := leaseFor("a", "h", 1, l, 5).Send(t.Context(), s)
			return err
		},
		"settle": func() error {
			_, err := s.Settle(t.Context(), quota.SettleRequest{ID: "s", Bucket: bucket, Limit: l, Period: quota.PeriodAt(&l, time.Now()), Actual: 1})
			return err
		},
		"credit": func() error {
			_, err := s.Credit(t.Context(), quota.CreditRequest{ID: "c", Bucket: bucket, Limit: l, Units: 7})
			return err
		},
	} {
		if err := verb(); err != nil {
			t.Fatal(err)
		}
		first := writer()
		if err := verb(); err != nil || writer() == first {
			t.Errorf("the repetition of a %s wrote nothing, %v", name, err)
		}
	}
}

// TestLedger_CrashesUnderLoad kills the server under load. Whatever was answered is there afterwards, nothing took place twice, and all
// go on by themselves.
func TestLedger_CrashesUnderLoad(t *testing.T) {
	server, address := ownServer(t, pgtest.Options{})
	l := hourly(1 << 40)
	var ledgers []*Ledger
	for range 2 {
		ledgers = append(ledgers, ledgerOf(t, Options{URL: address, StatementTimeout: time.Second}))
	}
	stop := make(chan struct{})
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	var (
		mu       sync.Mutex
		granted  = make(map[string]int64) // by holder
		credited int64
		answered int
		callers  sync.WaitGroup
	)
	// repeat calls a verb until it is answered, as a node does.
	repeat := func(verb func() error) {
		for {
			err := verb()
			if err == nil {
				return
			}
			if authz.KindOf(err) != authz.KindUnavailable {
				t.Error(err)
				return
			}
			time.Sleep(rand.N(5 * time.Millisecond)) // as a caller who comes again
		}
	}
	for i := range 24 {
		callers.Go(func() {
			s, node := ledgers[i%2], quota.NodeID(fmt.Sprint("node-", i))
			for seq := uint64(1); !stopped(); seq++ {
				holder := "shared"
				if seq%2 == 0 {
					holder = fmt.Sprint("own-", i)
				}
				repeat(func() error {
					lease, err := leaseFor(node, holder, seq, l, 3).Send(context.Background(), s)
					if err == nil && lease.Granted != 3 {
						err = authz.Errorf(authz.KindConflict, "granted %+v", lease)
					}
					return err
				})
				if seq%8 == 0 {
					repeat(func() error {
						_, err := s.Credit(context.Background(), quota.CreditRequest{
							ID: fmt.Sprintf("%s-%d", node, seq), Bucket: quota.Bucket{Per: l.Per, Holder: "credited", Limit: l.Name}, Limit: l, Units: 1,
						})
						return err
					})
				}
				mu.Lock()
				granted[holder] += 3
				answered++
				if seq%8 == 0 {
					credited++
				}
				mu.Unlock()
			}
		})
	}
	more := func(n int) {
		t.Helper()
		mu.Lock()
		n += answered
		mu.Unlock()
		waitUntil(t, fmt.Sprintf("%d verbs were answered", n), func() bool {
			mu.Lock()
			defer mu.Unlock()
			return answered >= n
		})
	}
	for range 3 {
		more(200)
		if err := errors.Join(server.Kill(), server.Start()); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	more(200)
	t.Logf("200 more verbs %v after the last crash", time.Since(began).Round(time.Millisecond))
	close(stop)
	callers.Wait()
	for holder, want := range granted {
		got, err := ledgers[0].Balance(t.Context(), quota.Bucket{Per: l.Per, Holder: holder, Limit: l.Name}, l)
		if err != nil || got.Granted != want {
			t.Errorf("holder %s: granted %d, of which %d were answered, %v", holder, got.Granted, want, err)
		}
	}
	got, err := ledgers[1].Balance(t.Context(), quota.Bucket{Per: l.Per, Holder: "credited", Limit: l.Name}, l)
	if err != nil || got.Allowance != l.Units+credited {
		t.Errorf("%d credits, of which %d were answered, %v", got.Allowance-l.Units, credited, err)
	}
}

// TestLedger_NodesUseUpALimit has nodes with a database connection each serve one caller until each of them says "exhausted".
func TestLedger_NodesUseUpALimit(t *testing.T) {
	const nodes, units = 3, 5000
	address := migrated(t)
	plans, faults := quota.ParsePlans(map[string]any{"p": map[string]any{"limits": map[string]any{
		"daily": map[string]any{"units": units, "window": "day", "per": "account"},
	}}})
	if faults != nil {
		t.Fatal(faults)
	}
	limits := plans["p"]
	var (
		ledgers []*Ledger
		ds      []*dispenser.Dispenser
		taken   [nodes]atomic.Int64
		wg      sync.WaitGroup
	)
	for i := range nodes {
		s := ledgerOf(t, Options{URL: address})
		hears(t, s.db)
		ledgers = append(ledgers, s)
		ds = append(ds, dispenser.New(s, quota.NodeID(fmt.Sprint("node-", i)), time.Now))
	}
	for _, s := range ledgers { // each has heard of the others
		waitUntil(t, "the nodes know each other", func() bool {
			for _, d := range ds {
				d.Sweep(t.Context())
			}
			return len(s.others("")) == nodes
		})
	}
	for i, d := range ds {
		for range 4 {
			wg.Go(func() {
				for {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					r, facts := new(authz.Reservation), make([]authz.QuotaFact, 1)
					ok := d.Reserve(ctx, authz.Holder{Account: "acme"}, limits, authz.Charge{"daily": 1}, facts, r)
					cancel()
					if !ok {
						if facts[0].State != authz.QuotaExhausted {
							t.Errorf("%+v", facts[0])
						}
						return
					}
					taken[i].Add(1)
				}
			})
		}
	}
	wg.Wait()
	total := int64(0)
	for i := range taken {
		t.Logf("node %d served %d of %d", i, taken[i].Load(), units)
		total += taken[i].Load()
	}
	if total > units || total*1000 < units*999 {
		t.Errorf("%d of %d units were served", total, units)
	}
	for _, d := range ds {
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	got, err := ledgers[0].Balance(t.Context(), quota.BucketOf(&limits[0], authz.Holder{Account: "acme"}), limits[0])
	if err != nil || got.Spent != total || got.Stranded != 0 || len(got.Outstanding) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestLedger_Forgets has one of two nodes forget for both, and passes over a record that is locked.
func TestLedger_Forgets(t *testing.T) {
	address, clock, l := migrated(t), quotatest.NewClock(), hourly(10)
	first, second := ledgerOf(t, Options{URL: address, Now: clock.Now}), ledgerOf(t, Options{URL: address, Now: clock.Now})
	renew(t, first, "a")
	for i := range 5 {
		leases(t, first, leaseFor("a", fmt.Sprint("h", i), uint64(i)+1, l, 1))
	}
	if _, err := first.Settle(t.Context(), quota.SettleRequest{ID: "s", Bucket: quota.Bucket{Per: l.Per, Holder: "h1", Limit: l.Name}, Limit: l}); err != nil {
		t.Fatal(err)
	}
	clock.Advance(3 * time.Hour)
	for node, s := range map[quota.NodeID]*Ledger{"a": first, "b": second} {
		defer s.Join(node, nil)()
		renew(t, s, node)
	}
	commit := inTransaction(t, address, "SELECT FROM tollkeeper.holders WHERE holder = 'h3' FOR UPDATE")
	for _, c := range []struct {
		s    *Ledger
		want int
	}{{second, 0}, {first, 4}, {first, 0}} {
		if n, err := c.s.Forget(t.Context()); err != nil || n != c.want {
			t.Errorf("%d forgotten, want %d, %v", n, c.want, err)
		}
	}
	commit()
	if n, err := first.Forget(t.Context()); err != nil || n != 1 {
		t.Errorf("%d forgotten, want 1, %v", n, err)
	}
	var settled int
	if err := first.db.read(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT count(*) FROM tollkeeper.settled").Scan(&settled)
	}); err != nil || settled != 0 {
		t.Errorf("%d settled ids are left, %v", settled, err)
	}
}

// database is the name in a URL.
func database(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

// TestLedger_WithoutFunctions serves where the role may not ask which server answers.
func TestLedger_WithoutFunctions(t *testing.T) {
	address := migrated(t)
	if err := pgtest.Shared(t).Exec(t.Context(), database(t, address), `REVOKE EXECUTE ON FUNCTION pg_control_system(),
		pg_walfile_name(pg_lsn), pg_current_wal_insert_lsn() FROM PUBLIC`); err != nil {
		t.Fatal(err)
	}
	s := ledgerOf(t, Options{URL: address})
	renew(t, s, "a")
	if got := leases(t, s, leaseFor("a", "h", 1, hourly(10), 4)); got.Granted != 4 || got.Withheld {
		t.Errorf("%+v", got)
	}
	if m := s.reached(); m != (mark{}) {
		t.Errorf("a mark %+v of a server that does not tell", m)
	}
}

// TestLedger_AsynchronousCommit meets a session in which somebody has turned synchronous_commit off.
func TestLedger_AsynchronousCommit(t *testing.T) {
	s := ledgerOf(t, Options{URL: migrated(t), MaxConnections: 1})
	renew(t, s, "a")
	set := func(value string) {
		if err := s.db.read(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "SET synchronous_commit = "+value)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	set("off")
	if _, err := leaseFor("a", "h", 1, hourly(10), 4).Send(t.Context(), s); err == nil || !strings.Contains(err.Error(), "synchronous_commit is off") {
		t.Errorf("leased: %v", err)
	}
	set("on")
	leases(t, s, leaseFor("a", "h", 1, hourly(10), 4))
}
