package transfer_test

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey/apikeytest"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation/revocationtest"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/transfer"
)

// sums are those of a store, by section.
type sums map[transfer.Section]string

func sumsOf(t testing.TB, from transfer.Source) sums {
	t.Helper()
	out := make(sums)
	for _, s := range transfer.Sections() {
		sum, err := transfer.SumOf(context.Background(), from, s)
		if err != nil {
			t.Fatal(err)
		}
		out[s] = fmt.Sprint(sum.Count, " ", sum.Hash())
	}
	return out
}

// boltSource opens a file to copy. The caller closes it.
func boltSource(t testing.TB, path string) (*bolt.Source, func()) {
	t.Helper()
	file, err := bolt.Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := file.Source(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s, func() { _ = file.Close() }
}

// toBolt copies into a new file, which it opens as a server does, and returns its path.
func toBolt(t testing.TB, from transfer.Source) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	to, err := bolt.Fill(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Copy(context.Background(), from, to, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(path, bolt.Options{Pepper: from.Info().Pepper})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Check(context.Background()); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// written opens a new file for a suite. When the suite is done, check gets the file.
func written(t *testing.T, now func() time.Time, check func(path string)) *bolt.DB {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	db, err := bolt.Open(path, bolt.Options{Pepper: "none", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		check(path)
	})
	return db
}

// throughSuites has the contract suites, with their random verbs, fill files, and copies each.
func throughSuites(t *testing.T, check func(t *testing.T, path string)) {
	t.Run("keys", func(t *testing.T) {
		apikeytest.Run(t, func(t *testing.T, now func() time.Time) apikey.Store {
			return written(t, now, func(path string) { check(t, path) }).Keys()
		})
	})
	t.Run("revocations", func(t *testing.T) {
		revocationtest.Run(t, func(t *testing.T, now func() time.Time) revocation.Store {
			return written(t, now, func(path string) { check(t, path) }).Revocations()
		})
	})
	t.Run("ledger", func(t *testing.T) {
		quotatest.Run(t, func(t *testing.T, now func() time.Time) quota.Ledger {
			return written(t, now, func(path string) { check(t, path) }).Ledger()
		})
	})
}

// prepared returns the URL of a database with the schema.
func prepared(t testing.TB) string {
	t.Helper()
	return pgtest.Prepared(t, "schema", func(ctx context.Context, url string) error {
		_, _, err := postgres.Migrate(ctx, postgres.Options{URL: url})
		return err
	})
}

// emptied is a database as it was prepared. To make one takes ten times as long.
func emptied(t testing.TB, url string) string {
	t.Helper()
	if err := pgtest.Run(context.Background(), url, `TRUNCATE tollkeeper.accounts, tollkeeper.keys, tollkeeper.revocations, tollkeeper.marks, tollkeeper.holders,
		tollkeeper.journal, tollkeeper.settled; DELETE FROM tollkeeper.feed WHERE revision > 0;
		UPDATE tollkeeper.installation SET revision = 0, pepper = NULL, filling = NULL`); err != nil {
		t.Fatal(err)
	}
	return url
}

// toPostgres copies into an empty database.
func toPostgres(t testing.TB, from transfer.Source, url string) {
	t.Helper()
	to, err := postgres.OpenFilling(context.Background(), postgres.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Copy(context.Background(), from, to, transfer.Options{Batch: 100}); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
}

// postgresSource opens a database to copy. The caller closes it.
func postgresSource(t testing.TB, url string) (s *postgres.Source, done func()) {
	t.Helper()
	s, err := postgres.OpenSource(context.Background(), postgres.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	return s, func() { _ = s.Close() }
}

// TestCopy_ThereAndBack copies random content from a file to PostgreSQL, back, and to PostgreSQL again.
func TestCopy_ThereAndBack(t *testing.T) {
	first, second := prepared(t), prepared(t)
	throughSuites(t, func(t *testing.T, path string) {
		if !strings.Contains(t.Name(), "random") {
			return
		}
		from, done := boltSource(t, path)
		defer done()
		want, info := sumsOf(t, from), from.Info()
		same := func(what string, s transfer.Source) {
			t.Helper()
			if got := sumsOf(t, s); !maps.Equal(got, want) {
				t.Errorf("%s has %v, want %v", what, got, want)
			}
			if s.Info().Pepper != info.Pepper || s.Info().Revision < info.Revision {
				t.Errorf("%s is %+v, copied from %+v", what, s.Info(), info)
			}
		}
		toPostgres(t, from, emptied(t, first))
		there, done := postgresSource(t, first)
		defer done()
		same("PostgreSQL", there)
		back, done := boltSource(t, toBolt(t, there))
		defer done()
		same("the file", back)
		toPostgres(t, back, emptied(t, second))
		again, done := postgresSource(t, second)
		defer done()
		same("PostgreSQL again", again)
	})
}
