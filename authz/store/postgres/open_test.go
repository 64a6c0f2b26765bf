package postgres

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

// serving is a role that has what a server needs, and no more.
const serving = "serving"

// migrated returns the URL of a database of its own that has the schema, for the role of a server.
func migrated(t testing.TB) string {
	t.Helper()
	url := pgtest.Prepared(t, "migrated", func(ctx context.Context, url string) error {
		if err := pgtest.Shared(t).Exec(ctx, "postgres", "CREATE ROLE "+serving+" LOGIN PASSWORD '"+pgtest.Password+"'"); err != nil {
			return err
		}
		_, _, err := Migrate(ctx, Options{URL: url, GrantTo: serving})
		return err
	})
	return strings.Replace(url, pgtest.Owner+":", serving+":", 1)
}

// open opens the database, and closes it when the test ends.
func open(t testing.TB, o Options) *DB {
	t.Helper()
	db, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// owned is the URL of a database of migrated for its owner.
func owned(url string) string { return strings.Replace(url, serving+":", pgtest.Owner+":", 1) }

// run runs statements on a database, as its owner.
func run(t testing.TB, url, sql string) {
	t.Helper()
	if err := pgtest.Run(t.Context(), owned(url), sql); err != nil {
		t.Fatal(err)
	}
}

// refused fails the test unless Open returns an error of that kind with that text.
func refused(t *testing.T, o Options, kind authz.Kind, text string) {
	t.Helper()
	db, err := Open(t.Context(), o)
	if err == nil {
		_ = db.Close()
		t.Fatalf("opened, want an error with %q", text)
	}
	if authz.KindOf(err) != kind || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "secret") {
		t.Errorf("error of kind %s: %v\nwant one of kind %s with %q", authz.KindOf(err), err, kind, text)
	}
}

func TestOpen_SameInstallationAgain(t *testing.T) {
	url := migrated(t)
	first := open(t, Options{URL: url, Pepper: "p"})
	id := first.Installation()
	if len(id) != 36 {
		t.Errorf("installation %q is not a UUID", id)
	}
	if got := open(t, Options{URL: url, Pepper: "p", Installation: id}).Installation(); got != id {
		t.Errorf("installation %q, then %q", id, got)
	}
}

func TestOpen_Refusals(t *testing.T) {
	t.Run("no schema", func(t *testing.T) {
		refused(t, Options{URL: pgtest.New(t)}, authz.KindConflict, "run tollkeeper store migrate")
	})
	t.Run("older schema", func(t *testing.T) {
		url := migrated(t)
		run(t, url, "UPDATE tollkeeper.schema_version SET version = 0")
		refused(t, Options{URL: url}, authz.KindConflict, "run tollkeeper store migrate")
	})
	t.Run("future schema", func(t *testing.T) {
		url := migrated(t)
		run(t, url, "INSERT INTO tollkeeper.schema_version (version, serves_from) VALUES (1000, 1000)")
		refused(t, Options{URL: url}, authz.KindConflict, "use a newer tollkeeper")
	})
	t.Run("other pepper", func(t *testing.T) {
		url := migrated(t)
		open(t, Options{URL: url, Pepper: "p"})
		refused(t, Options{URL: url, Pepper: "q"}, authz.KindConflict, "another pepper")
	})
	t.Run("other installation", func(t *testing.T) {
		refused(t, Options{URL: migrated(t), Installation: "00000000-0000-0000-0000-000000000000"}, authz.KindConflict, "tollkeeper store adopt")
	})
	t.Run("asynchronous commits", func(t *testing.T) {
		refused(t, Options{URL: migrated(t) + "&synchronous_commit=off"}, authz.KindConflict, "synchronous_commit is off")
	})
	t.Run("wrong password", func(t *testing.T) {
		refused(t, Options{URL: strings.Replace(migrated(t), pgtest.Password, "wrong", 1)}, authz.KindUnavailable, "password authentication")
	})
	t.Run("nobody there", func(t *testing.T) {
		refused(t, Options{URL: "postgres://u:secret@127.0.0.1:1/d"}, authz.KindUnavailable, "refused")
	})
}

// TestOpen_NewerSchemaThatServesOlder is a rollout: the schema was migrated for the next version, and a node of this one restarts.
func TestOpen_NewerSchemaThatServesOlder(t *testing.T) {
	url := migrated(t)
	run(t, url, "INSERT INTO tollkeeper.schema_version (version, serves_from) VALUES (1000, 1)")
	open(t, Options{URL: url})
}

func TestMigrate_AgainAndAtOnce(t *testing.T) {
	url, done := pgtest.New(t), make(chan error)
	for range 4 {
		go func() {
			_, after, err := Migrate(t.Context(), Options{URL: url})
			if err == nil && after != SchemaVersion() {
				err = errors.New("not the version of this program")
			}
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	before, after, err := Migrate(t.Context(), Options{URL: url})
	if err != nil || before != SchemaVersion() || after != before {
		t.Errorf("from %d to %d, %v", before, after, err)
	}
	run(t, url, "INSERT INTO tollkeeper.schema_version (version, serves_from) VALUES (1000, 1000)")
	if _, _, err := Migrate(t.Context(), Options{URL: url}); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("a schema from the future: %v", err)
	}
}
