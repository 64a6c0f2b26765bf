package postgres

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

// Keys is an apikey.Store. Find and Account answer from memory, which the feed keeps up to date; a key or an account that is not held
// there is read once. When the feed was last read to its end longer ago than Options.MaxStaleness, they answer KindUnavailable.
// Everything else reads the database.
type Keys struct {
	db     *DB
	reader *keyReader
	held   atomic.Pointer[heldKeys] // nil until they are loaded
	feed   keyFeed
}

var _ apikey.Store = (*Keys)(nil)

// Keys returns the keys and accounts of the database. The first call loads the digests of all keys, for which it waits. If that is
// not possible, it goes on in the background.
func (db *DB) Keys() *Keys {
	db.startKeys.Do(func() {
		s := &Keys{db: db, reader: newKeyReader(db)}
		s.feed.start(s)
		db.keys.Store(s)
	})
	return db.keys.Load()
}

// close ends the feed, and the reads that wait.
func (s *Keys) close() {
	s.feed.close()
	s.reader.close()
}

// Age is how long ago the feed was last read to its end, and false if it never was.
func (s *Keys) Age() (time.Duration, bool) { return s.feed.age() }

// fresh returns what is held in memory, or why it cannot be used.
func (s *Keys) fresh(ctx context.Context) (*heldKeys, error) {
	if err := ctx.Err(); err != nil {
		return nil, authz.Errorf(authz.KindUnavailable, "not read: %w", err)
	}
	h := s.held.Load()
	age, ok := s.feed.age()
	switch {
	case h == nil || !ok:
		return nil, authz.Errorf(authz.KindUnavailable, "the keys were not loaded yet")
	case age > s.db.o.MaxStaleness:
		return nil, authz.Errorf(authz.KindUnavailable, "what is known of the keys is %s old, and may be %s old", age.Round(time.Second), s.db.o.MaxStaleness)
	}
	return h, nil
}

// Find is apikey.Store.Find.
func (s *Keys) Find(ctx context.Context, d apikey.Digest) (*apikey.Key, error) {
	h, err := s.fresh(ctx)
	if err != nil {
		return nil, err
	}
	return h.cache.Key(ctx, d)
}

// Account is apikey.Store.Account.
func (s *Keys) Account(ctx context.Context, id string) (*apikey.Account, error) {
	h, err := s.fresh(ctx)
	if err != nil {
		return nil, err
	}
	return h.cache.Account(ctx, id)
}

// Key is apikey.Store.Key. Requests do not ask by id: it reads the database.
func (s *Keys) Key(ctx context.Context, id string) (*apikey.Key, error) {
	keys, err := s.list(ctx, `SELECT id, digest, record FROM tollkeeper.keys WHERE id = $1`, []byte(id))
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, noKey(id)
	}
	return keys[0], nil
}

func noKey(id string) error { return authz.Errorf(authz.KindNotFound, "no key %q", id) }

func noAccount(id string) error { return authz.Errorf(authz.KindNotFound, "no account %q", id) }

// Keys is apikey.Store.Keys.
func (s *Keys) Keys(ctx context.Context, p apikey.Page) ([]*apikey.Key, error) {
	if p.Account != "" {
		return s.list(ctx, `SELECT id, digest, record FROM tollkeeper.keys WHERE account = $1 AND id > $2 ORDER BY id LIMIT $3`,
			[]byte(p.Account), []byte(p.After), limitOf(p))
	}
	return s.list(ctx, `SELECT id, digest, record FROM tollkeeper.keys WHERE id > $1 ORDER BY id LIMIT $2`, []byte(p.After), limitOf(p))
}

func limitOf(p apikey.Page) int {
	if p.Limit <= 0 {
		return 100
	}
	return p.Limit
}

// list reads keys.
func (s *Keys) list(ctx context.Context, sql string, args ...any) ([]*apikey.Key, error) {
	var out []*apikey.Key
	err := s.db.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, scanKey)
		return err
	})
	return out, err
}

// scanKey reads a row of id, digest and record.
func scanKey(row pgx.CollectableRow) (*apikey.Key, error) {
	var id, digest, sealed []byte
	if err := row.Scan(&id, &digest, &sealed); err != nil {
		return nil, err
	}
	d, err := digestOf(digest)
	if err != nil {
		return nil, err
	}
	k, err := keyrecord.OpenKey(d, sealed)
	if err != nil {
		return nil, err
	}
	if k.ID != string(id) {
		return nil, authz.Errorf(authz.KindUnavailable, "the database is damaged: key %q is stored as %q", k.ID, id)
	}
	return k, nil
}

func digestOf(b []byte) (apikey.Digest, error) {
	if len(b) != len(apikey.Digest{}) {
		return apikey.Digest{}, authz.Errorf(authz.KindUnavailable, "the database is damaged: a key is stored under a digest of %d bytes", len(b))
	}
	return apikey.Digest(b), nil
}

// Accounts is apikey.Store.Accounts.
func (s *Keys) Accounts(ctx context.Context, p apikey.Page) ([]*apikey.Account, error) {
	var out []*apikey.Account
	err := s.db.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT id, record FROM tollkeeper.accounts WHERE id > $1 ORDER BY id LIMIT $2`, []byte(p.After), limitOf(p))
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*apikey.Account, error) {
			var id, sealed []byte
			if err := row.Scan(&id, &sealed); err != nil {
				return nil, err
			}
			return keyrecord.OpenAccount(string(id), sealed)
		})
		return err
	})
	return out, err
}

// planPage is how many records OnPlans reads at a time. A longer query would keep PostgreSQL from removing old rows of the ledger.
const planPage = 10_000

// OnPlans is apikey.Store.OnPlans.
func (s *Keys) OnPlans(ctx context.Context, each func(apikey.PlanUse) error) error {
	err := s.inPages(ctx, `SELECT id, plan FROM tollkeeper.accounts WHERE id > $1 AND plan <> '' ORDER BY id LIMIT $2`,
		func(id, plan []byte) error { return each(apikey.PlanUse{Plan: string(plan), Account: string(id)}) })
	if err != nil {
		return err
	}
	return s.inPages(ctx, `SELECT id, digest || record FROM tollkeeper.keys WHERE id > $1 AND plan <> '' ORDER BY id LIMIT $2`,
		func(_, both []byte) error {
			n := min(len(both), len(apikey.Digest{}))
			record, err := keyrecord.Open(both[:n], both[n:])
			if err != nil {
				return err
			}
			use, ok, err := keyrecord.PlanUse(record)
			if err != nil || !ok {
				return err
			}
			return each(use)
		})
}

// inPages calls each for the rows of a query, of which it asks for planPage after the id of the last one at a time.
func (s *Keys) inPages(ctx context.Context, sql string, each func(id, value []byte) error) error {
	type row struct{ id, value []byte }
	after := []byte{}
	for {
		var page []row
		err := s.db.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, sql, after, planPage)
			if err != nil {
				return err
			}
			page, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (out row, err error) {
				err = r.Scan(&out.id, &out.value)
				return out, err
			})
			return err
		})
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := each(r.id, r.value); err != nil {
				return err
			}
			after = r.id
		}
		if len(page) < planPage {
			return nil
		}
	}
}
