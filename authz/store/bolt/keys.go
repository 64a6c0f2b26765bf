package bolt

import (
	"bytes"
	"context"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
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
	return c.Key(ctx, d)
}

// Key is apikey.Store.Key.
func (s *Keys) Key(ctx context.Context, id string) (*apikey.Key, error) {
	if _, err := s.db.loaded(ctx); err != nil {
		return nil, err
	}
	var k *apikey.Key
	err := s.db.view(ctx, func(tx *bbolt.Tx) (err error) {
		k, err = keyByID(tx, []byte(id))
		return err
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// keyByID reads a key from the file.
func keyByID(tx *bbolt.Tx, id []byte) (*apikey.Key, error) {
	d := tx.Bucket([]byte(bucketKeys)).Get(id)
	if d == nil {
		return nil, noKey(string(id))
	}
	k, err := decodeKey(d, tx.Bucket([]byte(bucketDigests)).Get(d))
	if err != nil {
		return nil, err
	}
	if k == nil {
		return nil, authz.Errorf(authz.KindUnavailable, "the data file is damaged: key %q is listed and not there", id)
	}
	return k, nil
}

func noKey(id string) error { return authz.Errorf(authz.KindNotFound, "no key %q", id) }

// decodeKey reads the record of a key, nil if there is none.
func decodeKey(digest, sealed []byte) (*apikey.Key, error) {
	if sealed == nil {
		return nil, nil
	}
	if len(digest) != len(apikey.Digest{}) {
		return nil, authz.Errorf(authz.KindUnavailable, "the data file is damaged: a key is stored under a digest of %d bytes", len(digest))
	}
	return keyrecord.OpenKey(apikey.Digest(digest), sealed)
}

// decodeAccount reads the record of an account, nil if there is none.
func decodeAccount(id, sealed []byte) (*apikey.Account, error) {
	if sealed == nil {
		return nil, nil
	}
	return keyrecord.OpenAccount(string(id), sealed)
}

// Account is apikey.Store.Account.
func (s *Keys) Account(ctx context.Context, id string) (*apikey.Account, error) {
	c, err := s.db.loaded(ctx)
	if err != nil {
		return nil, err
	}
	return c.Account(ctx, id)
}

// Accounts is apikey.Store.Accounts.
func (s *Keys) Accounts(ctx context.Context, p apikey.Page) ([]*apikey.Account, error) {
	var out []*apikey.Account
	err := s.db.view(ctx, func(tx *bbolt.Tx) error {
		return listIDs(tx.Bucket([]byte(bucketAccounts)).Cursor(), nil, p, func(id string, sealed []byte) error {
			a, err := decodeAccount([]byte(id), sealed)
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
		c, prefix := tx.Bucket([]byte(bucketKeys)).Cursor(), []byte(nil)
		if p.Account != "" {
			c, prefix = tx.Bucket([]byte(bucketAccountKeys)).Cursor(), joinKey(p.Account, "")
		}
		return listIDs(c, prefix, p, func(id string, _ []byte) error {
			k, err := keyByID(tx, []byte(id))
			if authz.KindOf(err) == authz.KindNotFound {
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
