package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// maxAttempts is how often a transaction is run before its error is returned.
const maxAttempts = 8

// errRepeat marks an error after which nothing has changed, and which another attempt may not meet.
var errRepeat = errors.New("to be repeated")

// tx runs a transaction and commits it if run returns nil. It repeats run on a deadlock, on a serialization failure, and if the
// connection was lost before the commit was sent, so run MUST be fit to be repeated. An error of an authz.Kind is returned as it
// is, and every other one gets a kind. After KindUnavailable it is unspecified whether the transaction took place.
//
// The server ends a statement, and a pause between two, after Options.StatementTimeout. Unless ctx has a deadline, an attempt ends
// after twice that: a server that is stopped answers nothing and closes nothing.
func (db *DB) tx(ctx context.Context, run func(pgx.Tx) error) error {
	return db.repeat(ctx, func(ctx context.Context, conn *pgxpool.Conn) error {
		tx, err := conn.BeginTx(ctx, db.begin)
		if err != nil {
			return lost(conn, err)
		}
		if err := run(tx); err != nil {
			rollBack(ctx, tx)
			return lost(conn, err)
		}
		err = tx.Commit(ctx)
		if rolledBack(err) {
			return fmt.Errorf("%w: %w", errRepeat, err)
		}
		return err
	})
}

// read runs statements that change nothing, outside of a transaction, and repeats them as tx does. The server does not end them, but
// ctx does.
func (db *DB) read(ctx context.Context, run func(context.Context, *pgx.Conn) error) error {
	return db.repeat(ctx, func(ctx context.Context, conn *pgxpool.Conn) error {
		return lost(conn, run(ctx, conn.Conn()))
	})
}

// lost marks an error before a commit that calls for another attempt.
func lost(conn *pgxpool.Conn, err error) error {
	var refusal *authz.Error
	switch {
	case err == nil:
		return nil
	case rolledBack(err), sqlState(err) == stateReadOnly:
		return fmt.Errorf("%w: %w", errRepeat, err)
	case conn.Conn().IsClosed() && !errors.As(err, &refusal):
		return fmt.Errorf("%w: %w", errRepeat, err)
	}
	return err
}

// rollBack ends a transaction that failed. Its connection is closed if that does not succeed soon.
func rollBack(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = tx.Rollback(ctx)
}

func (db *DB) repeat(ctx context.Context, attempt func(context.Context, *pgxpool.Conn) error) error {
	for n := 1; ; n++ {
		err := db.once(ctx, attempt)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errRepeat) || n == maxAttempts || ctx.Err() != nil {
			return wrap(err)
		}
		if sqlState(err) == stateReadOnly || n == 2 && !rolledBack(err) {
			db.pool.Reset() // the other connections lead to the same server
		}
		if !pause(ctx, n) {
			return wrap(err)
		}
	}
}

// once is one attempt with a connection of the pool. It shuts the gate if none can be made, and if the server does not answer at all.
func (db *DB) once(ctx context.Context, attempt func(context.Context, *pgxpool.Conn) error) error {
	if err := db.gate.pass(); err != nil {
		return err
	}
	patient := false
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 2*db.o.StatementTimeout)
		defer cancel()
		patient = true
	}
	conn, err := db.pool.Acquire(ctx)
	switch {
	case err != nil && sqlState(err) == stateTooMany: // others of this node may soon be free
		return fmt.Errorf("%w: %w", errRepeat, err)
	case err != nil && ctx.Err() == nil:
		db.gate.shut(err)
		return err
	case err != nil:
		return err
	}
	defer conn.Release()
	if err = attempt(ctx, conn); err != nil && patient && ctx.Err() == context.DeadlineExceeded {
		db.gate.shut(err)
	}
	return err
}

// probe finds out whether the database can be reached. Connections from before are closed: their server may be gone.
func (db *DB) probe(ctx context.Context) error {
	db.pool.Reset()
	ctx, cancel := context.WithTimeout(ctx, db.o.ConnectTimeout)
	defer cancel()
	return db.pool.Ping(ctx)
}

// pause waits before attempt n + 1, for a random time so that those who were in each other's way do not meet again. It returns false
// if ctx ended.
func pause(ctx context.Context, n int) bool {
	timer := time.NewTimer(rand.N(time.Millisecond << min(n, 6)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
