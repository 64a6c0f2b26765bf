package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// inadmissible says why a database must not be served.
type inadmissible struct{ text string }

func (e *inadmissible) Error() string { return e.text }

func refuse(format string, args ...any) error { return &inadmissible{fmt.Sprintf(format, args...)} }

// identity is what is looked at before a database is served.
type identity struct {
	version, servesFrom int
	installation        string
	pepper              *string // nil: no server has started yet
	filling             *string // nil: no copy is being written into it
	synchronous         string
}

// identify asks for all of it in one round trip.
func identify(ctx context.Context, conn *pgx.Conn) (i identity, err error) {
	err = conn.QueryRow(ctx, `
		SELECT v.version, v.serves_from, i.id::text, i.pepper, i.filling, current_setting('synchronous_commit')
		FROM tollkeeper.installation i, tollkeeper.schema_version v ORDER BY v.version DESC LIMIT 1`, pgx.QueryExecModeExec,
	).Scan(&i.version, &i.servesFrom, &i.installation, &i.pepper, &i.filling, &i.synchronous)
	switch state := sqlState(err); {
	case state == stateNoTable || state == stateNoSchema || errors.Is(err, pgx.ErrNoRows):
		err = refuse("the database has no tables of tollkeeper: run tollkeeper store migrate")
	case state == stateNoPrivilege:
		err = refuse("the role may not read the tables of tollkeeper: grant it what tollkeeper store migrate --print says (%v)", err)
	}
	return i, err
}

// checkCopied refuses a database that must not be copied, nor be the target of a copy.
func (i *identity) checkCopied() error {
	if err := checkVersion(i.version, i.servesFrom); err != nil {
		return err
	}
	if i.synchronous == "off" {
		return refuse("synchronous_commit is off: a crash of PostgreSQL would lose what was acknowledged")
	}
	return nil
}

// check refuses a database that must not be served.
func (i *identity) check(o *Options) error {
	if err := i.checkCopied(); err != nil {
		return err
	}
	switch {
	case i.filling != nil:
		return refuse("the database is an unfinished copy of another store: run tollkeeper store copy again, which goes on with it")
	case o.Installation != "" && i.installation != o.Installation:
		return refuse("this is installation %s, and this node serves installation %s: if the database was replaced on purpose, run tollkeeper store adopt",
			i.installation, o.Installation)
	case i.pepper != nil && *i.pepper != o.Pepper:
		return refuse("the database was made with another pepper (fingerprint %q, configured %q): none of its keys would be found", *i.pepper, o.Pepper)
	}
	return nil
}

// admit looks at the database behind a new connection. It costs a round trip for each connection, and nothing for a request.
func (db *DB) admit(ctx context.Context, conn *pgx.Conn) error {
	i, err := identify(ctx, conn)
	if err != nil {
		return err
	}
	if i.pepper == nil && i.check(&db.o) == nil {
		if i.pepper, err = db.setPepper(ctx, conn); err != nil {
			return err
		}
	}
	if err := i.check(&db.o); err != nil {
		return err
	}
	return db.settle(i.installation)
}

// settle makes the installation of the first connection that of all later ones.
func (db *DB) settle(id string) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	switch db.installation {
	case id:
		return nil
	case "":
		if db.o.OnInstallation != nil {
			if err := db.o.OnInstallation(id); err != nil {
				return err
			}
		}
		db.installation = id
		return nil
	}
	return refuse("this is installation %s, and installation %s was served until now", id, db.installation)
}

// stillServes refuses another installation than that of the connections, such as a schema that was made anew while servers run: their
// connections stay. It closes those, and admit refuses the next ones.
func (db *DB) stillServes(id string) error {
	served := db.Installation()
	if id == served {
		return nil
	}
	db.pool.Reset()
	return refuse("this is installation %s, and installation %s was served until now", id, served)
}

// setPepper makes the configured pepper that of the installation, unless another node is faster, and returns what it is then.
func (db *DB) setPepper(ctx context.Context, conn *pgx.Conn) (*string, error) {
	var pepper string
	err := conn.QueryRow(ctx, `UPDATE tollkeeper.installation SET pepper = coalesce(pepper, $1) RETURNING pepper`, pgx.QueryExecModeExec, db.o.Pepper).Scan(&pepper)
	return &pepper, err
}
