package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

// rows returns the rows of a query as text.
func rows(t *testing.T, url, sql string) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	r, _ := conn.Query(t.Context(), sql)
	out, err := pgx.CollectRows(r, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// server makes a role that has the privileges of a server in the database, and returns its URL.
func server(t *testing.T, url string) (role, itsURL string) {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	role = `Server of "` + cfg.Database + `"` // a name that has to be quoted
	s := pgtest.Shared(t)
	if err := s.Exec(t.Context(), "postgres", fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", pgx.Identifier{role}.Sanitize(), pgtest.Password)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before the database is dropped, on which it depends
		_ = s.Exec(context.Background(), cfg.Database, fmt.Sprintf("DROP OWNED BY %[1]s; DROP ROLE %[1]s", pgx.Identifier{role}.Sanitize()))
	})
	if _, _, err := Migrate(t.Context(), Options{URL: url, GrantTo: role}); err != nil {
		t.Fatal(err)
	}
	return role, strings.Replace(url, pgtest.Owner+":", strings.NewReplacer(" ", "%20", `"`, "%22").Replace(role)+":", 1)
}

func TestGrants_AreEnoughAndNoMore(t *testing.T) {
	url := pgtest.New(t)
	role, limited := server(t, url)
	open(t, Options{URL: limited, Pepper: "p"})
	if _, err := ReadStatus(t.Context(), Options{URL: limited}); err != nil {
		t.Errorf("status: %v", err)
	}
	for _, sql := range []string{
		"CREATE TABLE tollkeeper.x ()", "ALTER TABLE tollkeeper.keys ADD x int", "TRUNCATE tollkeeper.settled", "DROP TABLE tollkeeper.marks",
		"DELETE FROM tollkeeper.journal", "UPDATE tollkeeper.journal SET units = 0", "DELETE FROM tollkeeper.keys", "DELETE FROM tollkeeper.accounts",
		"UPDATE tollkeeper.installation SET id = gen_random_uuid()", "DELETE FROM tollkeeper.installation", "DELETE FROM tollkeeper.roll",
		"UPDATE tollkeeper.schema_version SET version = 7", "INSERT INTO tollkeeper.schema_version (version, serves_from) VALUES (7, 7)",
	} {
		if err := pgtest.Run(t.Context(), limited, sql); sqlState(err) != stateNoPrivilege {
			t.Errorf("%s: %v, want a refusal", sql, err)
		}
	}
	all := rows(t, url, `SELECT tablename::text FROM pg_tables WHERE schemaname = 'tollkeeper'`)
	granted := rows(t, url, `SELECT DISTINCT table_name::text FROM information_schema.table_privileges WHERE grantee = `+"'"+role+"'")
	slices.Sort(all)
	slices.Sort(granted)
	if !slices.Equal(all, granted) {
		t.Errorf("tables %q, and privileges on %q: complete migrations/grants.sql", all, granted)
	}
	for _, table := range Tables {
		if !slices.Contains(all, table) {
			t.Errorf("there is no table %q", table)
		}
	}
}

// TestSQL_IsWhatMigrateDoes compares the catalogs of two databases.
func TestSQL_IsWhatMigrateDoes(t *testing.T) {
	migrated, printed := pgtest.New(t), pgtest.New(t)
	role, _ := server(t, migrated)
	sql, err := SQL(0, role)
	if err != nil {
		t.Fatal(err)
	}
	run(t, printed, sql)
	for what, query := range map[string]string{
		"columns": `SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '') || coalesce(collation_name, '')
			FROM information_schema.columns WHERE table_schema = 'tollkeeper' ORDER BY 1`,
		"indexes":     `SELECT indexdef FROM pg_indexes WHERE schemaname = 'tollkeeper' ORDER BY 1`,
		"constraints": `SELECT conrelid::regclass || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'tollkeeper'::regnamespace ORDER BY 1`,
		"privileges":  `SELECT relname || coalesce(relacl::text, '') || coalesce(reloptions::text, '') FROM pg_class WHERE relnamespace = 'tollkeeper'::regnamespace ORDER BY 1`,
		"versions":    `SELECT version || ' ' || serves_from FROM tollkeeper.schema_version`,
	} {
		if a, b := rows(t, migrated, query), rows(t, printed, query); len(a) == 0 || !slices.Equal(a, b) {
			t.Errorf("%s:\n%s\nprinted:\n%s", what, strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
	}
	again, err := SQL(0, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := pgtest.Run(t.Context(), printed, again); err == nil {
		t.Error("the SQL for an empty database ran on one that is not")
	}
	open(t, Options{URL: printed})
}

func TestMigrate_InASchemaThatTheDBAMade(t *testing.T) {
	url := pgtest.New(t)
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	if err := pgtest.Shared(t).Exec(t.Context(), cfg.Database, fmt.Sprintf(
		"ALTER DATABASE %s OWNER TO postgres; CREATE SCHEMA tollkeeper AUTHORIZATION %s", cfg.Database, pgtest.Owner)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Migrate(t.Context(), Options{URL: url}); err != nil {
		t.Error(err)
	}
}
