package faulttest

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres"
)

// TestDeadlock has a session lock what a credit needs, in the other order. The server ends the credit's transaction, which is repeated.
func TestDeadlock(t *testing.T) {
	t.Parallel()
	s, url := startServer(t)
	r := newRig(t)
	r.start(postgres.Options{URL: url})
	other, err := pgx.Connect(t.Context(), s.SocketURL("tollkeeper"))
	must(t, err)
	defer func() { _ = other.Close(t.Context()) }()
	r.await("a deadlock", func() bool {
		for _, sql := range []string{
			"BEGIN", "SET LOCAL deadlock_timeout = '1min'", // the other side looks first
			"LOCK TABLE tollkeeper.journal IN EXCLUSIVE MODE",
			`SELECT pg_sleep(0.2)`, // a credit locks its record meanwhile
			`UPDATE tollkeeper.holders SET record = record WHERE holder = 'credited'`,
			"COMMIT",
		} {
			_, err := other.Exec(t.Context(), sql)
			must(t, err)
		}
		var n int
		must(t, other.QueryRow(t.Context(), "SELECT deadlocks FROM pg_stat_database WHERE datname = 'tollkeeper'").Scan(&n))
		return n > 0
	})
	r.phase("deadlock")
	r.mended()
	r.settle(false)
}

// TestSerializationFailure has the server end one in so many transactions of the ledger, and asks to repeat them. No caller notices.
func TestSerializationFailure(t *testing.T) {
	t.Parallel()
	s, url := startServer(t)
	r := newRig(t)
	r.start(postgres.Options{URL: url})
	must(t, s.Exec(t.Context(), "tollkeeper", `
		CREATE SEQUENCE public.faults;
		GRANT USAGE ON public.faults TO tollkeeper;
		CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF nextval('public.faults') % 20 = 0 THEN RAISE SQLSTATE '40001'; END IF;
			RETURN new;
		END $$;
		CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON tollkeeper.holders FOR EACH ROW EXECUTE FUNCTION public.fail()`))
	r.phase("")
	r.await("callers came", func() bool { return r.count("new ok") > 200 })
	if n := r.count("writes refused"); n > 0 {
		t.Errorf("%d writes met a failure that is to be repeated", n)
	}
	r.phase("one transaction in a few fails")
	must(t, s.Exec(t.Context(), "tollkeeper", "DROP TRIGGER fail ON tollkeeper.holders"))
	r.settle(false)
}
