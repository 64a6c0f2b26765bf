package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

// keyWrite is one transaction that changes keys and accounts. It reads and decides first, and queues what it writes: the row of
// revisions is locked only for the last two round trips.
type keyWrite struct {
	tx         pgx.Tx
	changes    []keyChange // without their revisions before flush
	statements []statement // of the changes; an import has none, and writes them itself
	place      place       // in the feed
}

// statement writes one change. Its last argument, which flush adds, is how many revisions before the last the change gets.
type statement struct {
	sql  string
	args []any
}

// write runs a transaction, and applies what it changed to memory before it returns. If another transaction has added the same id or
// digest meanwhile, run is repeated and will see it.
func (s *Keys) write(ctx context.Context, run func(context.Context, *keyWrite) error) error {
	var w *keyWrite
	err := s.db.tx(ctx, func(tx pgx.Tx) error {
		w = &keyWrite{tx: tx}
		err := run(ctx, w)
		if err == nil {
			err = w.flush(ctx)
		}
		if sqlState(err) == stateUniqueConflict {
			return fmt.Errorf("%w: %w", errRepeat, err)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.feed.reader.wrote(w.place)
	for h := s.held.Load(); h != nil; {
		h.written(w.changes)
		now := s.held.Load()
		if now == h {
			break
		}
		h = now // everything was loaded again meanwhile
	}
	s.feed.copy.touch(w.changes)
	return nil
}

// put queues a row.
func (w *keyWrite) put(c keyChange, sql string, args ...any) {
	w.changes = append(w.changes, c)
	w.statements = append(w.statements, statement{sql, args})
}

// flush takes the revisions and writes the rows, in one round trip.
func (w *keyWrite) flush(ctx context.Context) error {
	n := len(w.statements)
	if n == 0 {
		return nil
	}
	b := &pgx.Batch{}
	w.place.take(b, int64(n))
	for i, st := range w.statements {
		b.Queue(st.sql, append(st.args, int64(n-1-i))...)
	}
	b.Queue(notifyFeed)
	if err := w.tx.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	for i := range w.changes {
		w.changes[i].revision = w.place.Revision - int64(n-1-i)
	}
	return nil
}

// before is the revision that many before the last that takeRevisions has given this transaction.
const before = `(SELECT revision FROM tollkeeper.installation) - `

const (
	insertAccount = `INSERT INTO tollkeeper.accounts (id, plan, record, revision) VALUES ($1, $2, $3, ` + before + `$4::bigint)`
	updateAccount = `UPDATE tollkeeper.accounts SET plan = $2, record = $3, revision = ` + before + `$4::bigint WHERE id = $1`
	insertKey     = `INSERT INTO tollkeeper.keys (id, digest, account, plan, record, revision) VALUES ($1, $2, $3, $4, $5, ` + before + `$6::bigint)`
	updateKey     = `UPDATE tollkeeper.keys SET plan = $2, record = $3, revision = ` + before + `$4::bigint WHERE id = $1`
)

// CreateAccount is apikey.Store.CreateAccount.
func (s *Keys) CreateAccount(ctx context.Context, a apikey.Account) (*apikey.Account, error) {
	a.Version = 1
	if a.ID == "" {
		return nil, authz.Errorf(authz.KindInvalid, "an account needs an id")
	}
	var made *apikey.Account
	err := s.write(ctx, func(ctx context.Context, w *keyWrite) (err error) {
		there, err := w.account(ctx, a.ID)
		if err != nil {
			return err
		}
		if there != nil {
			return authz.Errorf(authz.KindExists, "there is an account %q already", a.ID)
		}
		made, err = w.putAccount(insertAccount, &a)
		return err
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

// AmendAccount is apikey.Store.AmendAccount.
func (s *Keys) AmendAccount(ctx context.Context, id string, c apikey.AccountChange) (*apikey.Account, error) {
	var amended *apikey.Account
	err := s.write(ctx, func(ctx context.Context, w *keyWrite) error {
		a, err := w.account(ctx, id)
		if err != nil {
			return err
		}
		if a == nil {
			return noAccount(id)
		}
		if a, err = a.Apply(c); err != nil {
			return err
		}
		amended, err = w.putAccount(updateAccount, a)
		return err
	})
	if err != nil {
		return nil, err
	}
	return amended, nil
}

// account reads an account and keeps others from changing it. It returns nil if there is none.
func (w *keyWrite) account(ctx context.Context, id string) (*apikey.Account, error) {
	var sealed []byte
	err := w.tx.QueryRow(ctx, `SELECT record FROM tollkeeper.accounts WHERE id = $1 FOR UPDATE`, []byte(id)).Scan(&sealed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return keyrecord.OpenAccount(id, sealed)
}

// putAccount queues an account and returns it as it will be read.
func (w *keyWrite) putAccount(sql string, a *apikey.Account) (*apikey.Account, error) {
	sealed, err := keyrecord.SealAccount(a)
	if err != nil {
		return nil, err
	}
	id := []byte(a.ID)
	w.put(keyChange{name: id, sealed: sealed}, sql, id, []byte(a.Plan), sealed)
	return keyrecord.OpenAccount(a.ID, sealed)
}

// CreateKey is apikey.Store.CreateKey.
func (s *Keys) CreateKey(ctx context.Context, k apikey.Key) (*apikey.Key, error) {
	var made *apikey.Key
	err := s.write(ctx, func(ctx context.Context, w *keyWrite) (err error) {
		made, err = w.addKey(ctx, k)
		return err
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

// AmendKey is apikey.Store.AmendKey.
func (s *Keys) AmendKey(ctx context.Context, id string, c apikey.KeyChange) (*apikey.Key, error) {
	var amended *apikey.Key
	err := s.write(ctx, func(ctx context.Context, w *keyWrite) error {
		k, err := w.key(ctx, id)
		if err != nil {
			return err
		}
		if k, err = k.Apply(c); err != nil {
			return err
		}
		amended, err = w.updateKey(k)
		return err
	})
	if err != nil {
		return nil, err
	}
	return amended, nil
}

// RotateKey is apikey.Store.RotateKey.
func (s *Keys) RotateKey(ctx context.Context, id string, successor apikey.Key, overlapEnds time.Time) (old, made *apikey.Key, err error) {
	err = s.write(ctx, func(ctx context.Context, w *keyWrite) error {
		k, err := w.key(ctx, id)
		if err != nil {
			return err
		}
		next := successor
		next.Lineage = k.Lineage // whatever the caller says: a second lineage would get a second balance
		if k, err = k.Rotate(next.ID, next.CreatedAt, overlapEnds); err != nil {
			return err
		}
		if made, err = w.addKey(ctx, next); err != nil {
			return err
		}
		old, err = w.updateKey(k)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return old, made, nil
}

// key reads a key and keeps others from changing it.
func (w *keyWrite) key(ctx context.Context, id string) (*apikey.Key, error) {
	rows, err := w.tx.Query(ctx, `SELECT id, digest, record FROM tollkeeper.keys WHERE id = $1 FOR UPDATE`, []byte(id))
	if err != nil {
		return nil, err
	}
	k, err := pgx.CollectExactlyOneRow(rows, scanKey)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, noKey(id)
	}
	return k, err
}

// addKey queues a new key.
func (w *keyWrite) addKey(ctx context.Context, k apikey.Key) (*apikey.Key, error) {
	if k.ID == "" {
		return nil, authz.Errorf(authz.KindInvalid, "a key needs an id")
	}
	if err := w.vacant(ctx, &k); err != nil {
		return nil, err
	}
	k.Version = 1
	if k.Lineage == "" {
		k.Lineage = k.ID
	}
	sealed, err := keyrecord.SealKey(&k)
	if err != nil {
		return nil, err
	}
	w.put(keyChange{isKey: true, name: k.Digest[:], sealed: sealed}, insertKey,
		[]byte(k.ID), k.Digest[:], []byte(k.Account), []byte(k.Plan), sealed)
	return keyrecord.OpenKey(k.Digest, sealed)
}

// vacant returns an error if the id or the digest of a new key is taken, or if it has no account.
func (w *keyWrite) vacant(ctx context.Context, k *apikey.Key) error {
	var sameID, hasAccount bool
	var sameText []byte // the id
	err := w.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM tollkeeper.keys WHERE id = $1),
		(SELECT id FROM tollkeeper.keys WHERE digest = $2), EXISTS (SELECT FROM tollkeeper.accounts WHERE id = $3)`,
		[]byte(k.ID), k.Digest[:], []byte(k.Account)).Scan(&sameID, &sameText, &hasAccount)
	switch {
	case err != nil:
		return err
	case sameID:
		return authz.Errorf(authz.KindExists, "there is a key %q already", k.ID)
	case sameText != nil:
		return authz.Errorf(authz.KindExists, "key %q has the same text as key %q", k.ID, sameText)
	case !hasAccount:
		return noAccount(k.Account)
	}
	return nil
}

// updateKey queues a key that is stored already.
func (w *keyWrite) updateKey(k *apikey.Key) (*apikey.Key, error) {
	sealed, err := keyrecord.SealKey(k)
	if err != nil {
		return nil, err
	}
	w.put(keyChange{isKey: true, name: k.Digest[:], sealed: sealed}, updateKey, []byte(k.ID), []byte(k.Plan), sealed)
	return keyrecord.OpenKey(k.Digest, sealed)
}
