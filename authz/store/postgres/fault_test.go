package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

// counted opens a database with a table of one row, to which transactions add.
func counted(t *testing.T, o Options) *DB {
	t.Helper()
	run(t, o.URL, "CREATE TABLE public.counts (id int PRIMARY KEY, n int); INSERT INTO public.counts VALUES (1, 0), (2, 0); GRANT ALL ON public.counts TO PUBLIC")
	return open(t, o)
}

func addOne(ctx context.Context, tx pgx.Tx, id int) error {
	_, err := tx.Exec(ctx, "UPDATE public.counts SET n = n + 1 WHERE id = $1", id)
	return err
}

func count(t *testing.T, db *DB, id int) (n int) {
	t.Helper()
	if err := db.read(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT n FROM public.counts WHERE id = $1", id).Scan(&n)
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTx_RepeatsADeadlock(t *testing.T) {
	db := counted(t, Options{URL: migrated(t)})
	var both, done sync.WaitGroup
	both.Add(2)
	runs := make([]int, 2)
	for i := range 2 {
		done.Go(func() {
			if err := db.tx(t.Context(), func(tx pgx.Tx) error {
				first, second := 1+i, 2-i
				if err := addOne(t.Context(), tx, first); err != nil {
					return err
				}
				if runs[i]++; runs[i] == 1 {
					both.Done()
					both.Wait()
				}
				return addOne(t.Context(), tx, second)
			}); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if a, b := count(t, db, 1), count(t, db, 2); a != 2 || b != 2 || runs[0]+runs[1] != 3 {
		t.Errorf("counts %d and %d after %v runs, want 2 and 2 after 3", a, b, runs)
	}
}

func TestTx_RepeatsASerializationFailure(t *testing.T) {
	db, runs := counted(t, Options{URL: migrated(t)}), 0
	if err := db.tx(t.Context(), func(tx pgx.Tx) error {
		if err := addOne(t.Context(), tx, 1); err != nil {
			return err
		}
		if runs++; runs < 3 {
			_, err := tx.Exec(t.Context(), "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")
			return err
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db, 1); n != 1 || runs != 3 {
		t.Errorf("count %d after %d runs, want 1 after 3", n, runs)
	}
}

// TestTx_ConnectionLost cuts at the commit. Before the server has it, nothing happened, but the client cannot know that: it must not
// repeat in either case.
func TestTx_ConnectionLost(t *testing.T) {
	url := migrated(t)
	proxy := pgtest.NewProxy(t, pgtest.Shared(t))
	db := counted(t, Options{URL: url})
	through := open(t, Options{URL: proxy.URL(url)})
	runs := 0
	verb := func() error {
		runs = 0
		return through.tx(t.Context(), func(tx pgx.Tx) error {
			runs++
			return addOne(t.Context(), tx, 1)
		})
	}
	for _, c := range []struct {
		at          string
		pass        bool
		runs, count int
		lost        bool
	}{
		{"begin", false, 1, 1, false},
		{"begin", true, 1, 2, false},
		{"UPDATE public.counts", false, 2, 3, false},
		{"UPDATE public.counts", true, 2, 4, false},
		{"commit\x00", false, 1, 4, true},
		{"commit\x00", true, 1, 5, true},
	} {
		through.pool.Reset() // a statement is prepared once for each connection, so that its text is sent only on a new one
		cuts := proxy.Cuts()
		proxy.Cut(c.at, c.pass)
		err := verb()
		if (err != nil) != c.lost || err != nil && authz.KindOf(err) != authz.KindUnavailable || proxy.Cuts() != cuts+1 {
			t.Errorf("cut at %q (passed: %v): %v, %d cuts", c.at, c.pass, err, proxy.Cuts()-cuts)
		}
		if n := count(t, db, 1); n != c.count || runs != c.runs {
			t.Errorf("cut at %q (passed: %v): count %d after %d runs, want %d after %d", c.at, c.pass, n, runs, c.count, c.runs)
		}
	}
}

// TestTx_ReadOnly is a failover that leaves the connections to the old primary open.
func TestTx_ReadOnly(t *testing.T) {
	db := counted(t, Options{URL: migrated(t), MaxConnections: 1})
	if err := db.read(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SET default_transaction_read_only = on")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.tx(t.Context(), func(tx pgx.Tx) error { return addOne(t.Context(), tx, 1) }); err != nil {
		t.Error(err)
	}
	if n := count(t, db, 1); n != 1 {
		t.Errorf("count %d", n)
	}
}

func TestTx_Errors(t *testing.T) {
	db := counted(t, Options{URL: migrated(t), StatementTimeout: 100 * time.Millisecond})
	statement := func(sql string, args ...any) error {
		return db.tx(t.Context(), func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), sql, args...)
			return err
		})
	}
	for _, c := range []struct {
		err  error
		kind authz.Kind
		text string
	}{
		{statement("SELECT pg_sleep(60)"), authz.KindUnavailable, "statement timeout"},
		{statement("SELECT nothing"), authz.KindUnavailable, "42703"},
		{statement("INSERT INTO public.counts VALUES (1, 0)"), authz.KindUnavailable, "23505"},
		{statement("SELECT $1::text", "a\x00b"), authz.KindInvalid, "22021"},
		{statement("INSERT INTO tollkeeper.accounts VALUES ('', '', '', 1)"), authz.KindInvalid, "23514"},
		{statement("SELECT convert_from('\\xff', 'UTF8')"), authz.KindInvalid, "22021"},
		{db.tx(t.Context(), func(pgx.Tx) error { return authz.Errorf(authz.KindConflict, "ours") }), authz.KindConflict, "ours"},
		{db.tx(t.Context(), func(pgx.Tx) error { return errors.New("any") }), authz.KindUnavailable, "any"},
	} {
		if c.err == nil || authz.KindOf(c.err) != c.kind || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("%v, want one of kind %s with %q", c.err, c.kind, c.text)
		}
	}
	// An error that the function swallows does not become a commit.
	if err := db.tx(t.Context(), func(tx pgx.Tx) error {
		_, _ = tx.Exec(t.Context(), "SELECT nothing")
		return nil
	}); authz.KindOf(err) != authz.KindUnavailable || err == nil {
		t.Errorf("commit of a transaction that failed: %v", err)
	}
}

// TestDB_ServerFaults needs no restart of the client after any fault of the server.
func TestDB_ServerFaults(t *testing.T) {
	s, err := pgtest.Start(pgtest.Options{Settings: []string{"max_connections = 8", "superuser_reserved_connections = 3"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.CreateDatabase("d"); err != nil {
		t.Fatal(err)
	}
	o := Options{URL: s.URL("d"), StatementTimeout: 500 * time.Millisecond, MaxConnections: 3}
	if _, _, err := Migrate(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	db, want := counted(t, o), 0
	works := func(after string) {
		t.Helper()
		waitUntil(t, "the gate is open", func() bool { return db.gate.pass() == nil })
		if err := db.tx(t.Context(), func(tx pgx.Tx) error { return addOne(t.Context(), tx, 1) }); err != nil {
			t.Fatalf("after %s: %v", after, err)
		}
		if want++; count(t, db, 1) != want {
			t.Fatalf("after %s: count %d, want %d", after, count(t, db, 1), want)
		}
	}
	fails := func(during string) {
		t.Helper()
		start := time.Now()
		err := db.tx(t.Context(), func(tx pgx.Tx) error { return addOne(t.Context(), tx, 1) })
		if err == nil || authz.KindOf(err) != authz.KindUnavailable || time.Since(start) > 10*time.Second {
			t.Fatalf("during %s: %v after %v", during, err, time.Since(start))
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	works("the start")

	must(s.Kill())
	fails("a crash")
	must(s.Start())
	works("a crash")

	must(s.Pause())
	fails("a stop of all processes")
	must(s.Resume())
	works("a stop of all processes")

	must(s.Stop())
	must(s.Start())
	works("a restart that no request met")

	must(s.Exec(t.Context(), "d", "ALTER ROLE tollkeeper PASSWORD 'other'; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tollkeeper'"))
	fails("a changed password")
	must(s.Exec(t.Context(), "d", fmt.Sprintf("ALTER ROLE tollkeeper PASSWORD '%s'", pgtest.Password)))
	works("a changed password")

	var others []*pgx.Conn
	must(s.Exec(t.Context(), "d", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tollkeeper'"))
	for {
		conn, err := pgx.Connect(t.Context(), s.URL("d"))
		if err != nil {
			break
		}
		others = append(others, conn)
	}
	fails("too many connections")
	for _, conn := range others {
		must(conn.Close(t.Context()))
	}
	for db.tx(t.Context(), func(pgx.Tx) error { return nil }) != nil { // the server counts a connection until its process has ended
		if t.Context().Err() != nil {
			t.Fatal("no connection")
		}
	}
	works("too many connections")

	// The database is replaced by an empty one, and then by a foreign one.
	must(s.Exec(t.Context(), "postgres", "DROP DATABASE d WITH (FORCE)"))
	must(s.CreateDatabase("d"))
	fails("an empty database")
	if _, _, err := Migrate(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	run(t, o.URL, "CREATE TABLE public.counts (id int PRIMARY KEY, n int); INSERT INTO public.counts VALUES (1, 0)")
	fails("a foreign database")
}

// TestDB_SchemaMadeAnew replaces the schema under a running server, whose connections stay: a revocation that was read once still
// holds, and nothing is served from the new schema.
func TestDB_SchemaMadeAnew(t *testing.T) {
	url := pgtest.New(t)
	if _, _, err := Migrate(t.Context(), Options{URL: url}); err != nil {
		t.Fatal(err)
	}
	db := open(t, Options{URL: url})
	set := revocation.NewSet(db.Revocations(), time.Minute, time.Now)
	add(t, db.Revocations(), keyRecord("key_1"))
	if err := set.Sync(t.Context()); err != nil || !set.Key("key_1") {
		t.Fatalf("%v", err)
	}
	run(t, url, "DROP SCHEMA tollkeeper CASCADE")
	if _, _, err := Migrate(t.Context(), Options{URL: url}); err != nil {
		t.Fatal(err)
	}
	syncErr := set.Sync(t.Context())
	_, addErr := db.Revocations().Add(t.Context(), keyRecord("key_2"))
	for what, err := range map[string]error{
		"reading the feed": syncErr, "a write": addErr, "a transaction": db.tx(t.Context(), func(pgx.Tx) error { return nil }),
	} {
		if err == nil || authz.KindOf(err) != authz.KindUnavailable {
			t.Errorf("%s, on another schema: %v", what, err)
		}
	}
	if !set.Key("key_1") {
		t.Error("a revocation was forgotten")
	}
}

// TestOpen_Away starts while no server answers, and serves when one does.
func TestOpen_Away(t *testing.T) {
	url := migrated(t)
	proxy := pgtest.NewProxy(t, pgtest.Shared(t))
	proxy.SetDown(true)
	o := Options{URL: proxy.URL(url), Pepper: "p"}
	refused(t, o, authz.KindUnavailable, "PostgreSQL")
	var kept []string
	o.MayBeAway, o.OnInstallation = true, func(id string) error {
		kept = append(kept, id)
		return nil
	}
	db := open(t, o)
	if db.Installation() != "" || len(kept) != 0 {
		t.Errorf("installation %q of a server that is away", db.Installation())
	}
	proxy.SetDown(false)
	if err := db.tx(t.Context(), func(pgx.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if len(kept) != 1 || kept[0] != db.Installation() || kept[0] == "" {
		t.Errorf("kept %q, installation %q", kept, db.Installation())
	}
	o.Pepper = "q"
	refused(t, o, authz.KindConflict, "another pepper") // not away
}

// TestDB_PasswordInAFile changes the password of a running server.
func TestDB_PasswordInAFile(t *testing.T) {
	url, file := migrated(t), filepath.Join(t.TempDir(), "url")
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	s := pgtest.Shared(t)
	role := "rotated_" + cfg.Database
	write := func(password string) {
		t.Helper()
		if err := s.Exec(t.Context(), "postgres", fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", role, password)); err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(s.URLOf(role, cfg.Database), pgtest.Password, password, 1)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Exec(t.Context(), "postgres", fmt.Sprintf("CREATE ROLE %s LOGIN IN ROLE tollkeeper", role)); err != nil {
		t.Fatal(err)
	}
	write("one")
	db := open(t, Options{URLFile: file})
	write("two")
	db.pool.Reset()
	if err := db.tx(t.Context(), func(pgx.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
}
