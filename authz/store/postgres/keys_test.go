package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
