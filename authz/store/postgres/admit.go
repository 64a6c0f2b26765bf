package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// inadmissible says why a database must not be served.
type inadmissible struct{ text string }

func (e *inadmissible) Error() string { return e.text }

func refuse(format string, args ...any) error { return &inadmissible{fmt.Sprintf(format, args...)} }

// admit looks at the database behind a new connection, in one round trip. It costs that once a connection, and nothing a request.
func (db *DB) admit(ctx context.Context, conn *pgx.Conn) error {
	var (
		version, servesFrom int
		id                  string
		pepper              *string
		synchronous         string
	)
	err := conn.QueryRow(ctx, `
		SELECT v.version, v.serves_from, i.id::text, i.pepper, current_setting('synchronous_commit')
		FROM tollkeeper.installation i, tollkeeper.schema_version v ORDER BY v.version DESC LIMIT 1`, pgx.QueryExecModeExec,
	).Scan(&version, &servesFrom, &id, &pepper, &synchronous)
	switch state := sqlState(err); {
	case state == stateNoTable || state == stateNoSchema || err == pgx.ErrNoRows:
		return refuse("the database has no tables of tollkeeper: run tollkeeper store migrate")
	case state == stateNoPrivilege:
		return refuse("the role may not read the tables of tollkeeper: grant it what tollkeeper store migrate --print says (%v)", err)
	case err != nil:
		return err
	}
	if err := checkVersion(version, servesFrom); err != nil {
		return err
	}
	switch {
	case db.o.Installation != "" && id != db.o.Installation:
		return refuse("this is installation %q, and this node served installation %q: if the database was replaced on purpose, run tollkeeper store adopt", id, db.o.Installation)
	case synchronous == "off":
		return refuse("synchronous_commit is off: a crash of PostgreSQL would lose what was acknowledged")
	}
	if pepper == nil {
		if pepper, err = db.setPepper(ctx, conn); err != nil {
			return err
		}
	}
	if *pepper != db.o.Pepper {
		return refuse("the database was made with another pepper (fingerprint %q, configured %q): none of its keys would be found", *pepper, db.o.Pepper)
	}
	if db.installation.CompareAndSwap(nil, &id) || db.Installation() == id {
		return nil
	}
	return refuse("this is installation %q, and installation %q was served until now", id, db.Installation())
}

// setPepper makes the configured pepper that of the installation, unless another node is faster, and returns what it is then.
func (db *DB) setPepper(ctx context.Context, conn *pgx.Conn) (*string, error) {
	var pepper string
	err := conn.QueryRow(ctx, `UPDATE tollkeeper.installation SET pepper = coalesce(pepper, $1) RETURNING pepper`, pgx.QueryExecModeExec, db.o.Pepper).Scan(&pepper)
	return &pepper, err
}
