package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Status is what an operator can know about a database without a server.
type Status struct {
	Server       string           `json:"server"`            // version of PostgreSQL
	Schema       int              `json:"schema"`            // its version
	Installation string           `json:"installation"`      // id
	Incarnation  string           `json:"incarnation"`       // of the ledger: another one may have lost commits; "" if the server does not tell
	Revision     int64            `json:"revision"`          // of the feed
	Rows         map[string]int64 `json:"rows"`              // by table
	Filling      bool             `json:"filling,omitempty"` // it is an unfinished copy of another store
}

// Tables are those whose rows Status counts, in the order in which they are shown.
var Tables = []string{"accounts", "keys", "revocations", "holders", "journal", "settled"}

// ReadStatus looks at a database and changes nothing. Counting takes as long as reading all tables once.
//
// The error is of KindConflict if there is no schema, or it is not that of this program. Otherwise errors are as in Open.
func ReadStatus(ctx context.Context, o Options) (s Status, err error) {
	err = look(ctx, o, func(conn *pgx.Conn, i *identity) error {
		if err := checkVersion(i.version, i.servesFrom); err != nil {
			return err
		}
		s = Status{Schema: i.version, Installation: i.installation, Filling: i.filling != nil, Rows: make(map[string]int64)}
		if err := conn.QueryRow(ctx, `SELECT current_setting('server_version'), revision FROM tollkeeper.installation`).Scan(&s.Server, &s.Revision); err != nil {
			return err
		}
		var which [2]string
		for i := range which {
			err := conn.QueryRow(ctx, "SELECT "+whichServer[i].read).Scan(&which[i])
			if state := sqlState(err); err != nil && state != stateNoFunction && state != stateNoPrivilege && state != stateNoFeature {
				return err
			}
		}
		s.Incarnation = (&state{system: which[0], timeline: which[1]}).incarnation()
		for _, table := range Tables {
			var n int64
			if err := conn.QueryRow(ctx, fmt.Sprintf(`SELECT count(*) FROM tollkeeper.%s`, table)).Scan(&n); err != nil {
				return err
			}
			s.Rows[table] = n
		}
		return nil
	})
	return s, err
}

// Check returns the id of the installation, or the error that Open would return. It changes nothing.
func Check(ctx context.Context, o Options) (installation string, err error) {
	err = look(ctx, o, func(_ *pgx.Conn, i *identity) error {
		installation = i.installation
		return i.check(&o)
	})
	return installation, err
}

// Installation returns the id of the installation, whether or not it may be served.
func Installation(ctx context.Context, o Options) (id string, err error) {
	err = look(ctx, o, func(_ *pgx.Conn, i *identity) error {
		id = i.installation
		return nil
	})
	return id, err
}

// look uses a connection of its own.
func look(ctx context.Context, o Options, use func(*pgx.Conn, *identity) error) error {
	conn, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	i, err := identify(ctx, conn)
	if err == nil {
		err = use(conn, &i)
	}
	return refusal(err)
}

// refusal is the error of a database that must not be served, to those who ask whether it may be.
func refusal(err error) error {
	var refused *inadmissible
	if errors.As(err, &refused) {
		return authz.Errorf(authz.KindConflict, "PostgreSQL: %w", refused)
	}
	return wrap(err)
}

// connect makes a connection outside of a pool.
func connect(ctx context.Context, o Options) (*pgx.Conn, error) {
	o = o.withDefaults()
	cfg, err := parse(o)
	if err != nil {
		return nil, err
	}
	cfg.ConnConfig.ConnectTimeout = o.ConnectTimeout
	conn, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
	return conn, wrap(err)
}
