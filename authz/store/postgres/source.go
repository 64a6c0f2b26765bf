package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/transfer"
)

// Source is a database to copy. Nothing can be written to it until Close.
type Source struct {
	entries
	conn *pgx.Conn
	tx   pgx.Tx
	info transfer.Info
}

var _ transfer.Source = (*Source)(nil)

// lockTables ends when a transaction ends. Reads go on, and writes wait until their statement_timeout. Whoever owns the tables may do it.
const lockTables = `LOCK TABLE tollkeeper.installation, tollkeeper.roll, tollkeeper.accounts, tollkeeper.keys, tollkeeper.revocations,
	tollkeeper.marks, tollkeeper.holders, tollkeeper.journal, tollkeeper.settled IN SHARE MODE`

// longTransaction lets a transaction take as long as it takes, and not wait for locks.
const longTransaction = `SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = '10s'`

// OpenSource locks a database against writes and opens it for a copy. The role must own the schema.
//
// The error is of KindConflict if nodes serve from the database, or nothing ever did.
func OpenSource(ctx context.Context, o Options) (*Source, error) {
	conn, err := connect(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &Source{conn: conn}
	if err := s.open(ctx); err != nil {
		_ = s.Close()
		return nil, refusal(err)
	}
	return s, nil
}

func (s *Source) open(ctx context.Context) error {
	i, err := identify(ctx, s.conn)
	if err != nil {
		return err
	}
	if err := i.checkCopied(); err != nil {
		return err
	}
	switch {
	case i.filling != nil:
		return refuse("the database is itself an unfinished copy")
	case i.pepper == nil:
		return refuse("no server has ever used the database: there is nothing to copy")
	}
	if err := noNodes(ctx, s.conn); err != nil { // else they would wait for the lock
		return err
	}
	if s.tx, err = s.conn.Begin(ctx); err != nil {
		return err
	}
	s.query = s.tx.Query
	if _, err := s.tx.Exec(ctx, longTransaction); err != nil {
		return err
	}
	if _, err := s.tx.Exec(ctx, lockTables); err != nil {
		if sqlState(err) == stateLockTimeout {
			return refuse("something still writes to the database: stop all servers")
		}
		return err
	}
	if err := noNodes(ctx, s.tx); err != nil {
		return err
	}
	var revision int64
	var roll string
	if err := s.tx.QueryRow(ctx, `SELECT i.revision, coalesce(r.content->>'number', '0') FROM tollkeeper.installation i, tollkeeper.roll r`).
		Scan(&revision, &roll); err != nil {
		return err
	}
	s.info = transfer.Info{
		// Whatever writes to the ledger joins the roll first, and gets a number.
		Store: "installation " + i.installation, State: fmt.Sprintf("revision %d, roll %s", revision, roll),
		Pepper: *i.pepper, Revision: uint64(revision),
	}
	return nil
}

// Info is transfer.Source.Info.
func (s *Source) Info() transfer.Info { return s.info }

// Close lets others write again.
func (s *Source) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return wrap(s.conn.Close(ctx))
}

// querier is a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// noNodes refuses a database from which nodes serve.
func noNodes(ctx context.Context, q querier) error {
	var content string
	var now time.Time
	if err := q.QueryRow(ctx, `SELECT content::text, clock_timestamp() FROM tollkeeper.roll`).Scan(&content, &now); err != nil {
		return err
	}
	var roll quota.Roll
	if err := json.Unmarshal([]byte(content), &roll); err != nil {
		return authz.Errorf(authz.KindUnavailable, "the roll of nodes cannot be read: %w", err)
	}
	var alive []string
	for _, node := range slices.Sorted(maps.Keys(roll.Members)) {
		if roll.Alive(node, now) {
			alive = append(alive, string(node))
		}
	}
	if len(alive) > 0 {
		return refuse("servers use the database (%s): stop them; one that was killed is gone after a minute", strings.Join(alive, ", "))
	}
	return nil
}
