package postgres

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

//go:embed migrations/*.sql
var files embed.FS

// steps matches the files of the steps.
const steps = "migrations/0*.sql"

// migration is one step of the schema. Its first line is "-- serves from: N": programs that know schema N or newer work with the
// schema after this step.
//
// During a rollout two versions of the program use one database. So a step only adds what older programs do not notice, and keeps
// N; what is no longer used is removed by a step of a later release, which sets N to the version that stopped using it. The order is
// always: migrate, then replace the servers. Steps that were released are never changed.
type migration struct {
	version    int
	servesFrom int
	sql        string
}

var servesFrom = regexp.MustCompile(`\A-- serves from: (\d+)\n`)

// migrations are the steps in order. They are numbered from 1 without gaps.
func migrations() ([]migration, error) {
	names, err := fs.Glob(files, steps) // sorted
	if err != nil {
		return nil, err
	}
	var out []migration
	for i, name := range names {
		sql, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		m := servesFrom.FindSubmatch(sql)
		if m == nil || name != fmt.Sprintf("migrations/%04d.sql", i+1) {
			return nil, fmt.Errorf("%s: not migration %d, or its first line does not say which programs it serves", name, i+1)
		}
		from, err := strconv.Atoi(string(m[1]))
		if err != nil {
			return nil, err
		}
		out = append(out, migration{i + 1, from, string(sql)})
	}
	return out, nil
}

// SchemaVersion is the version of the schema that this program knows.
func SchemaVersion() int {
	names, _ := fs.Glob(files, steps) // the pattern is correct
	return len(names)
}

// checkVersion refuses a schema that this program cannot serve.
func checkVersion(version, servesFrom int) error {
	switch ours := SchemaVersion(); {
	case version < ours:
		return refuse("the schema is version %d, and this program needs version %d: run tollkeeper store migrate", version, ours)
	case servesFrom > ours:
		return refuse("the schema is version %d, which serves programs that know version %d, and this one knows %d: use a newer tollkeeper", version, servesFrom, ours)
	}
	return nil
}

// firstTable holds which steps were taken.
const firstTable = `
CREATE TABLE tollkeeper.schema_version (
    version     integer PRIMARY KEY,
    serves_from integer NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
)`

// lockMigrations is the advisory lock under which steps are taken. The number means nothing.
const lockMigrations = `SELECT pg_advisory_xact_lock(7217091651836485)`

// recordStep notes that a step was taken.
const recordStep = `INSERT INTO tollkeeper.schema_version (version, serves_from) VALUES (%d, %d)`

// Migrate takes the steps that the database lacks, all or none, and returns the versions of the schema before (0: there was none)
// and after. The role must own the schema, or be allowed to make one. It may be called while servers run and by several at once.
//
// The error is of KindConflict if the schema is newer than the program, and of KindUnavailable if PostgreSQL refuses a step.
func Migrate(ctx context.Context, o Options) (before, after int, err error) {
	conn, err := connect(ctx, o)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if before, after, err = migrate(ctx, tx); err != nil || o.GrantTo == "" {
			return err
		}
		_, err := tx.Exec(ctx, grants(o.GrantTo))
		return err
	})
	return before, after, wrap(err)
}

// grants is the SQL that gives a role the privileges of a server.
func grants(role string) string {
	sql, _ := files.ReadFile("migrations/grants.sql") // is embedded
	return strings.ReplaceAll(string(sql), `"ROLE"`, pgx.Identifier{role}.Sanitize())
}

// SQL is what Migrate does to a database with that version of the schema, for psql. It fails on a database with another one.
func SQL(before int, grantTo string) (string, error) {
	all, err := migrations()
	if err != nil {
		return "", err
	}
	if before < 0 || before > len(all) {
		return "", authz.Errorf(authz.KindInvalid, "there is no version %d of the schema: this program knows 0 (none) to %d", before, len(all))
	}
	parts := []string{"BEGIN", lockMigrations}
	if before == 0 {
		parts = append(parts, "CREATE SCHEMA IF NOT EXISTS tollkeeper", strings.TrimSpace(firstTable))
	}
	for _, m := range all[before:] { // a step that was taken before fails: its number is there
		parts = append(parts, fmt.Sprintf(recordStep, m.version, m.servesFrom), strings.TrimSuffix(strings.TrimSpace(m.sql), ";"))
	}
	if grantTo != "" {
		parts = append(parts, strings.TrimSuffix(strings.TrimSpace(grants(grantTo)), ";"))
	}
	return strings.Join(append(parts, "COMMIT;\n"), ";\n\n"), nil
}

func migrate(ctx context.Context, tx pgx.Tx) (before, after int, err error) {
	all, err := migrations()
	if err != nil {
		return 0, 0, err
	}
	if _, err := tx.Exec(ctx, lockMigrations); err != nil {
		return 0, 0, err
	}
	var exists bool
	if err := tx.QueryRow(ctx, `SELECT to_regclass('tollkeeper.schema_version') IS NOT NULL`).Scan(&exists); err != nil {
		return 0, 0, err
	}
	if !exists {
		if err := begin(ctx, tx); err != nil {
			return 0, 0, err
		}
	}
	if err := tx.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM tollkeeper.schema_version`).Scan(&before); err != nil {
		return 0, 0, err
	}
	if before > len(all) {
		return 0, 0, authz.Errorf(authz.KindConflict, "the schema is version %d, and this program knows only version %d: use a newer tollkeeper", before, len(all))
	}
	for _, m := range all[before:] {
		_, err := tx.Exec(ctx, m.sql)
		if err == nil {
			_, err = tx.Exec(ctx, fmt.Sprintf(recordStep, m.version, m.servesFrom))
		}
		if err != nil {
			return 0, 0, fmt.Errorf("step %d of the schema: %w", m.version, err)
		}
	}
	return before, len(all), nil
}

// begin makes the schema, unless a DBA has done it, and the table of steps.
func begin(ctx context.Context, tx pgx.Tx) error {
	var exists bool
	if err := tx.QueryRow(ctx, `SELECT to_regnamespace('tollkeeper') IS NOT NULL`).Scan(&exists); err != nil {
		return err
	}
	if !exists { // IF NOT EXISTS needs the privilege to make schemas even where there is one
		if _, err := tx.Exec(ctx, `CREATE SCHEMA tollkeeper`); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, firstTable)
	return err
}
