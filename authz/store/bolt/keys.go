package bolt

import (
	"bytes"
	"context"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// Keys is an apikey.Store. Find and Account answer from memory for keys and accounts in use; everything else reads the file.
type Keys struct{ db *DB }

var _ apikey.Store = (*Keys)(nil)

// Keys returns the keys and accounts of the file.
func (db *DB) Keys() *Keys { return &Keys{db: db} }

// Find is apikey.Store.Find.
func (s *Keys) Find(ctx context.Context, d apikey.Digest) (*apikey.Key, error) {
	c, err := s.db.loaded(ctx)
	if err != nil {
		return nil, err
	}
	return readThrough(c, c.keys, d, func() (*apikey.Key, error) {
		if !c.digests.MayHave(d) {
			return nil, authz.Errorf(authz.KindNotFound, "no key has digest %x", d)
		}
		return readKeyByDigest(ctx, s.db, d)
	})
}

// Key is apikey.Store.Key.
func (s *Keys) Key(ctx context.Context, id string) (*apikey.Key, error) {
	if _, err := s.db.loaded(ctx); err != nil {
		return nil, err
	}
	return readRecord[apikey.Key](ctx, s.db, bucketKeys, id, "no key %q")
}

// Account is apikey.Store.Account.
func (s *Keys) Account(ctx context.Context, id string) (*apikey.Account, error) {
	c, err := s.db.loaded(ctx)
	if err != nil {
		return nil, err
	}
	a, err := readThrough(c, c.accounts, id, func() (*apikey.Account, error) {
		a, err := readRecord[apikey.Account](ctx, s.db, bucketAccounts, id, "no account %q")
		if authz.KindOf(err) == authz.KindNotFound { // nil is cached too: the accounts of an issuer may have no record here
			return nil, nil
		}
		return a, err
	})
	if a == nil && err == nil {
		return nil, authz.Errorf(authz.KindNotFound, "no account %q", id)
	}
	return a, err
}

// Accounts is apikey.Store.Accounts.
func (s *Keys) Accounts(ctx context.Context, p apikey.Page) ([]*apikey.Account, error) {
	var out []*apikey.Account
	err := s.db.view(ctx, func(tx *bbolt.Tx) error {
		return listIDs(tx.Bucket([]byte(bucketAccounts)).Cursor(), nil, p, func(_ string, text []byte) error {
			a, err := decode[apikey.Account](text)
			out = append(out, a)
			return err
		})
	})
	return out, err
}

// Keys is apikey.Store.Keys.
func (s *Keys) Keys(ctx context.Context, p apikey.Page) ([]*apikey.Key, error) {
	var out []*apikey.Key
	err := s.db.view(ctx, func(tx *bbolt.Tx) error {
		keys := tx.Bucket([]byte(bucketKeys))
		c, prefix := keys.Cursor(), []byte(nil)
		if p.Account != "" {
			c, prefix = tx.Bucket([]byte(bucketAccountKeys)).Cursor(), joinKey(p.Account, "")
		}
		return listIDs(c, prefix, p, func(id string, _ []byte) error {
			k, err := decode[apikey.Key](keys.Get([]byte(id)))
			if err == nil && k == nil {
				err = authz.Errorf(authz.KindUnavailable, "the data file is damaged: key %q is listed and not there", id)
			}
			out = append(out, k)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// listIDs calls each for the ids behind a prefix that the page asks for.
func listIDs(c *bbolt.Cursor, prefix []byte, p apikey.Page, each func(id string, value []byte) error) error {
	limit := p.Limit
	if limit <= 0 {
		limit = 100
	}
	start := append(bytes.Clone(prefix), p.After...)
	k, v := c.Seek(start)
	if p.After != "" && bytes.Equal(k, start) {
		k, v = c.Next()
	}
	for ; limit > 0 && k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if err := each(string(k[len(prefix):]), v); err != nil {
			return err
		}
		limit--
	}
	return nil
}
