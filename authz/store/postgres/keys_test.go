package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey/apikeytest"
)

func TestKeys_Contract(t *testing.T) {
	apikeytest.Run(t, func(t *testing.T, _ func() time.Time) apikey.Store {
		return open(t, Options{URL: migrated(t)}).Keys()
	})
}

// TestKeys_ContractWithoutSessions is the contract as through PgBouncer in transaction mode, without prepared statements.
func TestKeys_ContractWithoutSessions(t *testing.T) {
	apikeytest.Run(t, func(t *testing.T, _ func() time.Time) apikey.Store {
		return open(t, Options{URL: migrated(t) + "&default_query_exec_mode=exec"}).Keys()
	})
}

func digestOfText(text string) apikey.Digest { return apikey.Hasher{}.Text(text) }

// callers are n keys, each of an account of its own.
func callers(prefix string, n int) []apikey.Key {
	keys := make([]apikey.Key, n)
	for i := range keys {
		id := fmt.Sprint(prefix, i)
		keys[i] = apikey.Key{ID: id, Account: "account of " + id, Name: "name", Plan: "pro", Digest: digestOfText(id), CreatedAt: time.Unix(1e9, 0).UTC()}
	}
	return keys
}

func importKeys(t testing.TB, s *Keys, keys []apikey.Key) {
	t.Helper()
	if _, err := s.Import(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
}

// found fails the test unless the key and its account are found.
func found(t testing.TB, s *Keys, k *apikey.Key) {
	t.Helper()
	if got, err := s.Find(t.Context(), k.Digest); err != nil || got.ID != k.ID {
		t.Fatalf("%s: %+v, %v", k.ID, got, err)
	}
	if got, err := s.Account(t.Context(), k.Account); err != nil || got.ID != k.Account {
		t.Fatalf("%s: %+v, %v", k.Account, got, err)
	}
}

// refusedAs fails the test unless looking the digest up is an error of that kind.
func refusedAs(t testing.TB, s *Keys, text string, kind authz.Kind) {
	t.Helper()
	if k, err := s.Find(t.Context(), digestOfText(text)); err == nil || authz.KindOf(err) != kind {
		t.Fatalf("%s: %+v, %v, want an error of kind %s", text, k, err, kind)
	}
}

// statements counts the statements that read keys and accounts for checks, and holds statements up.
type statements struct {
	n      atomic.Int64
	mu     sync.Mutex
	starts map[string]chan struct{} // a statement is not sent before its channel is closed
	ends   map[string]chan struct{} // its caller does not go on before that
	held   atomic.Int64             // how many statements were held up
}

func newStatements() *statements {
	return &statements{starts: make(map[string]chan struct{}), ends: make(map[string]chan struct{})}
}

// hold holds a statement up until free is called, or the test ends.
func (s *statements) hold(t *testing.T, at map[string]chan struct{}, sql string) (free func()) {
	until := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	at[sql] = until
	free = sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(at, sql)
		close(until)
	})
	t.Cleanup(free)
	return free
}

func (s *statements) wait(at map[string]chan struct{}, sql string) {
	s.mu.Lock()
	until := at[sql]
	s.mu.Unlock()
	if until != nil {
		s.held.Add(1)
		<-until
	}
}

func (s *statements) seen(sql string) {
	if sql == selectKeys || sql == selectAccounts {
		s.n.Add(1)
	}
	s.wait(s.starts, sql)
}

type sqlOf struct{}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	s.seen(d.SQL)
	return context.WithValue(ctx, sqlOf{}, d.SQL)
}

func (s *statements) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	s.wait(s.ends, ctx.Value(sqlOf{}).(string))
}

func (s *statements) TraceBatchStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchStartData) context.Context {
	for _, q := range d.Batch.QueuedQueries {
		s.seen(q.SQL)
	}
	return ctx
}

func (s *statements) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (s *statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// TestKeys_StatementsOfChecks counts what checks ask of the database.
func TestKeys_StatementsOfChecks(t *testing.T) {
	url, sent := migrated(t), newStatements()
	keys := callers("a-foreign-key-", 100)
	importKeys(t, open(t, Options{URL: url}).Keys(), keys)
	s := open(t, Options{URL: url, tracer: sent}).Keys()
	who := apikey.NewIdentifier(s, apikey.Hasher{})
	for round := range 3 {
		for i := range keys {
			if k, a := who.Identify(t.Context(), keys[i].ID, time.Now()); k.ID != keys[i].ID || a.ID != keys[i].Account {
				t.Fatalf("%+v, %+v", k, a)
			}
			if k, _ := who.Identify(t.Context(), fmt.Sprintf("unknown-%d-%d", round, i), time.Now()); k.Status != authz.KeyUnknown {
				t.Fatalf("%+v", k)
			}
		}
		if n := sent.n.Load(); n != int64(len(keys)) {
			t.Errorf("round %d: %d statements for %d keys with their accounts", round, n, len(keys))
		}
	}
	for range 2 { // an account without a record, of an issuer
		if a := who.Account(t.Context(), "nobody"); a.Status != authz.AccountUnknown {
			t.Error(a)
		}
	}
	if n := sent.n.Load(); n != int64(len(keys))+1 {
		t.Errorf("%d statements", n)
	}
}

// TestKeys_ReadersShareStatements has many come for keys that are not held, while as many statements run as may.
func TestKeys_ReadersShareStatements(t *testing.T) {
	url, sent := migrated(t), newStatements()
	keys := callers("k", 400)
	importKeys(t, open(t, Options{URL: url}).Keys(), keys)
	s := open(t, Options{URL: url, tracer: sent}).Keys()
	s.reader.wait = time.Minute
	free := sent.hold(t, sent.starts, selectKeys)
	var wg sync.WaitGroup
	look := func(k *apikey.Key) {
		wg.Go(func() {
			if got, err := s.Find(t.Context(), k.Digest); err != nil || got.ID != k.ID {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	for i := range keyQueries {
		look(&keys[i])
		waitUntil(t, "it is asked for", func() bool { return sent.n.Load() == int64(i+1) })
	}
	for range 2 {
		for i := range keys[keyQueries:] {
			look(&keys[keyQueries+i])
		}
	}
	waitUntil(t, "all others wait", func() bool {
		s.reader.mu.Lock()
		defer s.reader.mu.Unlock()
		waiting := make(map[apikey.Digest]struct{})
		for _, b := range s.reader.queue {
			maps.Copy(waiting, b.digests)
		}
		return len(waiting) == len(keys)-keyQueries
	})
	free()
	wg.Wait()
	if n := sent.n.Load(); n > keyQueries+4 { // some may come after the others' statements were sent
		t.Errorf("%d statements for %d keys", n, len(keys))
	}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Find(impatient, keys[0].Digest); authz.KindOf(err) != authz.KindUnavailable {
		t.Error(err)
	}
}

// TestKeys_FeedInCommitOrder has a transaction take its revisions first and commit last: what the other has written meanwhile waits, and
// no node goes past it.
func TestKeys_FeedInCommitOrder(t *testing.T) {
	url := migrated(t)
	here, there := open(t, Options{URL: url}).Keys(), open(t, Options{URL: url}).Keys()
	if _, err := here.CreateAccount(t.Context(), apikey.Account{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	early, late := callers("early", 1)[0], callers("late", 1)[0]
	early.Account, late.Account = "acme", "acme"
	taken, commit := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // a node that is slow between its revisions and its commit
		if err := here.db.tx(t.Context(), func(tx pgx.Tx) error {
			w := &keyWrite{tx: tx}
			if _, err := w.addKey(t.Context(), early); err != nil {
				return err
			}
			if err := w.flush(t.Context()); err != nil {
				return err
			}
			close(taken)
			<-commit
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-taken
	written := make(chan struct{})
	wg.Go(func() {
		defer close(written)
		if _, err := here.CreateKey(t.Context(), late); err != nil {
			t.Error(err)
		}
	})
	waitUntil(t, "the other transaction waits for the first", func() bool { return waiting(t, here.db) == 1 })
	select {
	case <-written:
		t.Error("a later revision was committed first")
	default:
	}
	close(commit)
	wg.Wait()
	for _, k := range []apikey.Key{early, late} {
		waitUntil(t, "another node knows "+k.ID, func() bool {
			_, err := there.Find(t.Context(), k.Digest)
			return err == nil
		})
	}
	refusedAs(t, there, "neither", authz.KindNotFound)
}

// waiting is how many transactions of the database wait for another.
func waiting(t *testing.T, db *DB) (n int) {
	t.Helper()
	if err := db.read(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n)
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKeys_NodesConverge changes a few keys and accounts on three nodes at once, while others are imported. No node ever shows the state
// before a change that it has acknowledged, and in the end all hold the same as the database.
func TestKeys_NodesConverge(t *testing.T) {
	url := migrated(t)
	keys := callers("k", 6)
	nodes := make([]*Keys, 3)
	for i := range nodes {
		nodes[i] = open(t, Options{URL: url}).Keys()
	}
	importKeys(t, nodes[0], keys)
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for n, s := range nodes {
		var atLeast [6]atomic.Uint64 // versions of the keys that this node has acknowledged
		raise := func(i int, version uint64) {
			for old := atLeast[i].Load(); version > old && !atLeast[i].CompareAndSwap(old, version); old = atLeast[i].Load() {
			}
		}
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				i := rand.IntN(len(keys))
				if rand.IntN(20) == 0 { // as if it had not been used for a while
					s.held.Load().cache.DropKey(keys[i].Digest)
				}
				least := atLeast[i].Load()
				k, err := s.Find(t.Context(), keys[i].Digest)
				switch {
				case err != nil && (least > 0 || authz.KindOf(err) != authz.KindNotFound):
					t.Error(err)
					return
				case err == nil && k.Version < least:
					t.Errorf("node %d shows version %d of %s after %d", n, k.Version, k.ID, least)
					return
				}
			}
		})
		for w := range 3 {
			writers.Go(func() {
				for range 25 {
					i := rand.IntN(len(keys))
					k, err := s.AmendKey(t.Context(), keys[i].ID, apikey.KeyChange{Name: new(fmt.Sprint(n, w))})
					if err != nil {
						t.Error(err)
						return
					}
					raise(i, k.Version)
					if _, err := s.AmendAccount(t.Context(), keys[i].Account, apikey.AccountChange{Name: new(fmt.Sprint(n, w))}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	writers.Go(func() {
		for i := range 10 {
			importKeys(t, nodes[1], callers(fmt.Sprint("more", i, "-"), 700))
		}
	})
	writers.Wait()
	close(stop)
	readers.Wait()
	for n, s := range nodes {
		for _, k := range keys {
			waitUntil(t, fmt.Sprint("node ", n, " shows what is stored of ", k.ID), func() bool {
				stored, err := s.Key(t.Context(), k.ID)
				if err != nil {
					t.Fatal(err)
				}
				accounts, err := s.Accounts(t.Context(), apikey.Page{Limit: 10_000})
				if err != nil {
					t.Fatal(err)
				}
				at := slices.IndexFunc(accounts, func(a *apikey.Account) bool { return a.ID == k.Account })
				shown, err := s.Find(t.Context(), k.Digest)
				account, err2 := s.Account(t.Context(), k.Account)
				return err == nil && err2 == nil && shown.Version == stored.Version && shown.Name == stored.Name &&
					account.Version == accounts[at].Version && account.Name == accounts[at].Name
			})
		}
		for i := range 10 {
			for _, k := range callers(fmt.Sprint("more", i, "-"), 700)[650:] {
				found(t, s, &k)
			}
		}
	}
}

// TestKeys_WithoutNotifications has a node that cannot listen: it looks at intervals.
func TestKeys_WithoutNotifications(t *testing.T) {
	url := migrated(t)
	here := open(t, Options{URL: url}).Keys()
	there := open(t, Options{URL: url, ListenURL: "postgres://u@127.0.0.1:1/d"}).Keys()
	keys := callers("k", 2)
	importKeys(t, here, keys)
	began := time.Now()
	waitUntil(t, "the other node knows the keys", func() bool { _, err := there.Find(t.Context(), keys[1].Digest); return err == nil })
	t.Logf("after %s", time.Since(began).Round(time.Millisecond))
	found(t, there, &keys[0])
	if _, err := here.AmendKey(t.Context(), keys[0].ID, apikey.KeyChange{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the key is off there", func() bool { k, err := there.Find(t.Context(), keys[0].Digest); return err == nil && k.Disabled })
}

// TestKeys_MoreChangesThanAPage has a node read a feed of several pages.
func TestKeys_MoreChangesThanAPage(t *testing.T) {
	url := migrated(t)
	there := open(t, Options{URL: url}).Keys()
	keys := callers("k", 2*feedPage+10)
	importKeys(t, open(t, Options{URL: url}).Keys(), keys)
	for _, i := range []int{0, feedPage, len(keys) - 1} {
		waitUntil(t, "the other node knows "+keys[i].ID, func() bool { _, err := there.Find(t.Context(), keys[i].Digest); return err == nil })
	}
}

// save returns the statements that bring the keys back to what they are now.
func save(t *testing.T, url string) (restore string) {
	t.Helper()
	run(t, url, "CREATE SCHEMA saved")
	for _, table := range []string{"keys", "accounts", "feed", "installation"} {
		run(t, url, fmt.Sprintf("CREATE TABLE saved.%s AS TABLE tollkeeper.%s", table, table))
		restore += fmt.Sprintf("DELETE FROM tollkeeper.%s; INSERT INTO tollkeeper.%s TABLE saved.%s; ", table, table, table)
	}
	return "BEGIN; " + restore + "COMMIT"
}

// TestKeys_LostChanges has the database forget its last changes, as a standby that is promoted too early does, and then make others with
// the same revisions.
func TestKeys_LostChanges(t *testing.T) {
	url := migrated(t)
	s := open(t, Options{URL: url, MaxStaleness: 2 * time.Second}).Keys()
	keys := callers("k", 3)
	importKeys(t, s, keys[:1])
	restore := save(t, url)
	importKeys(t, s, keys[1:2])
	if _, err := s.AmendKey(t.Context(), keys[0].ID, apikey.KeyChange{Name: new("lost")}); err != nil {
		t.Fatal(err)
	}
	found(t, s, &keys[1])
	other := callers("other", 1)[0]
	run(t, url, restore)
	importKeys(t, open(t, Options{URL: url}).Keys(), []apikey.Key{other, keys[2]})
	waitUntil(t, "the lost key is unknown", func() bool {
		_, err := s.Find(t.Context(), keys[1].Digest)
		return authz.KindOf(err) == authz.KindNotFound
	})
	waitUntil(t, "the key shows its old name", func() bool {
		k, err := s.Find(t.Context(), keys[0].Digest)
		return err == nil && k.Name == keys[0].Name
	})
	waitUntil(t, "the other key is known", func() bool { _, err := s.Find(t.Context(), other.Digest); return err == nil })
}

// TestKeys_LostWriteOfThisNode has the database lose a write of the node before the node's feed has come to it.
func TestKeys_LostWriteOfThisNode(t *testing.T) {
	url, sent := migrated(t), newStatements()
	s := open(t, Options{URL: url, tracer: sent, MaxStaleness: 2 * time.Second}).Keys()
	keys := callers("k", 2)
	restore := save(t, url)
	free := sent.hold(t, sent.starts, selectChanges)
	importKeys(t, s, keys[:1])
	found(t, s, &keys[0])
	run(t, url, restore)
	free()
	waitUntil(t, "the lost key is unknown", func() bool {
		_, err := s.Find(t.Context(), keys[0].Digest)
		return authz.KindOf(err) == authz.KindNotFound
	})
}

// TestKeys_ReloadMissesNoWrite makes a key while everything is loaded anew: it is known as soon as that is used.
func TestKeys_ReloadMissesNoWrite(t *testing.T) {
	sent := newStatements()
	s := open(t, Options{URL: migrated(t), tracer: sent, MaxStaleness: time.Minute}).Keys()
	keys := callers("k", 3)
	importKeys(t, s, keys[:1])
	freeLoad := sent.hold(t, sent.ends, selectDigests)
	s.feed.reader.start(place{Revision: 1 << 40, Token: "00000000-0000-0000-0000-000000000000"}) // which the database does not know
	importKeys(t, s, keys[1:2])                                                                  // wakes the feed
	waitUntil(t, "the digests were read", func() bool { return sent.held.Load() == 1 })
	before := s.held.Load()
	importKeys(t, s, keys[2:])
	freeFeed := sent.hold(t, sent.starts, selectChanges)
	freeLoad()
	waitUntil(t, "they are used", func() bool { return s.held.Load() != before })
	for _, k := range keys {
		found(t, s, &k)
	}
	freeFeed()
}

// TestKeys_NamesThatCannotBeStored are refused, and change nothing.
func TestKeys_NamesThatCannotBeStored(t *testing.T) {
	s := open(t, Options{URL: migrated(t)}).Keys()
	long := strings.Repeat("x", maxID+1)
	if _, err := s.CreateAccount(t.Context(), apikey.Account{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"account":            second(s.CreateAccount(t.Context(), apikey.Account{ID: long})),
		"account, not UTF-8": second(s.CreateAccount(t.Context(), apikey.Account{ID: "\xff"})),
		"key":                second(s.CreateKey(t.Context(), apikey.Key{ID: long, Account: "acme"})),
		"key, not UTF-8":     second(s.CreateKey(t.Context(), apikey.Key{ID: "\xff", Account: "acme"})),
		"lineage, not UTF-8": second(s.CreateKey(t.Context(), apikey.Key{ID: "k", Account: "acme", Lineage: "\xff"})),
		"no id":              second(s.CreateKey(t.Context(), apikey.Key{Account: "acme"})),
	} {
		if err == nil || authz.KindOf(err) != authz.KindInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, bad := range []apikey.Key{{ID: long, Account: "acme"}, {ID: "k", Account: long}, {ID: "k", Account: "\xff"}} {
		var refused *apikey.ImportError
		_, err := s.Import(t.Context(), []apikey.Key{bad, {ID: "k2", Account: "new", Digest: digestOfText("k2")}})
		if !errors.As(err, &refused) || len(refused.Faults) != 1 {
			t.Errorf("import: %v", err)
		}
	}
	if keys, err := s.Keys(t.Context(), apikey.Page{}); err != nil || len(keys) != 0 {
		t.Errorf("%+v, %v", keys, err)
	}
	longest := strings.Repeat("y", maxID)
	if _, err := s.Import(t.Context(), []apikey.Key{{ID: longest, Account: longest, Digest: digestOfText("l")}}); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestHeldKeys_LateChanges applies changes in another order than that of their revisions: what may be out of date is not held.
func TestHeldKeys_LateChanges(t *testing.T) {
	s := open(t, Options{URL: migrated(t)}).Keys()
	importKeys(t, s, callers("k", 1))
	d := callers("k", 1)[0].Digest
	if _, err := s.AmendKey(t.Context(), "k0", apikey.KeyChange{Name: new("first")}); err != nil {
		t.Fatal(err)
	}
	held := s.held.Load()
	var late []keyChange
	if err := s.db.read(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, selectChanges, 0, 10)
		if err == nil {
			late, err = pgx.CollectRows(rows, scanChange)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AmendKey(t.Context(), "k0", apikey.KeyChange{Name: new("second")}); err != nil {
		t.Fatal(err)
	}
	for _, hold := range []bool{true, false} {
		held.apply(late, hold)
		if k, err := s.Find(t.Context(), d); err != nil || k.Name != "second" {
			t.Errorf("%+v, %v", k, err)
		}
	}
}
