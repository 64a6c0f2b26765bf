package bolt

import (
	"context"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

// CreateAccount is apikey.Store.CreateAccount.
func (s *Keys) CreateAccount(ctx context.Context, a apikey.Account) (*apikey.Account, error) {
	a.Version = 1
	return mutate(ctx, s.db.commits, func(w *write) (*apikey.Account, error) {
		if a.ID != "" && w.get(bucketAccounts, []byte(a.ID)) != nil {
			return nil, authz.Errorf(authz.KindExists, "there is an account %q already", a.ID)
		}
		return s.putAccount(w, &a)
	})
}

// AmendAccount is apikey.Store.AmendAccount.
func (s *Keys) AmendAccount(ctx context.Context, id string, c apikey.AccountChange) (*apikey.Account, error) {
	return mutate(ctx, s.db.commits, func(w *write) (*apikey.Account, error) {
		a, err := decodeAccount([]byte(id), w.get(bucketAccounts, []byte(id)))
		if err != nil {
			return nil, err
		}
		if a == nil {
			return nil, authz.Errorf(authz.KindNotFound, "no account %q", id)
		}
		if a, err = a.Apply(c); err != nil {
			return nil, err
		}
		return s.putAccount(w, a)
	})
}

func (s *Keys) putAccount(w *write, a *apikey.Account) (*apikey.Account, error) {
	sealed, err := keyrecord.SealAccount(a)
	if err != nil {
		return nil, err
	}
	id := []byte(a.ID)
	if err := w.put(bucketAccounts, id, sealed); err != nil {
		return nil, err
	}
	record, err := keyrecord.Open(id, sealed)
	if err != nil {
		return nil, err
	}
	w.afterCommit(func() { s.db.cache.Load().PutAccount(string(id), record) })
	return decodeAccount(id, sealed)
}

// CreateKey is apikey.Store.CreateKey.
func (s *Keys) CreateKey(ctx context.Context, k apikey.Key) (*apikey.Key, error) {
	return mutate(ctx, s.db.commits, func(w *write) (*apikey.Key, error) { return s.addKey(w, k) })
}

// AmendKey is apikey.Store.AmendKey.
func (s *Keys) AmendKey(ctx context.Context, id string, c apikey.KeyChange) (*apikey.Key, error) {
	return mutate(ctx, s.db.commits, func(w *write) (*apikey.Key, error) {
		k, err := getKey(w, id)
		if err != nil {
			return nil, err
		}
		if k, err = k.Apply(c); err != nil {
			return nil, err
		}
		return s.putKey(w, k)
	})
}

// RotateKey is apikey.Store.RotateKey.
func (s *Keys) RotateKey(ctx context.Context, id string, successor apikey.Key, overlapEnds time.Time) (old, made *apikey.Key, err error) {
	type both struct{ old, made *apikey.Key }
	pair, err := mutate(ctx, s.db.commits, func(w *write) (both, error) {
		k, err := getKey(w, id)
		if err != nil {
			return both{}, err
		}
		next := successor
		next.Lineage = k.Lineage // whatever the caller says: a second lineage would get a second balance
		if k, err = k.Rotate(next.ID, next.CreatedAt, overlapEnds); err != nil {
			return both{}, err
		}
		made, err := s.addKey(w, next)
		if err != nil {
			return both{}, err
		}
		old, err := s.putKey(w, k)
		return both{old, made}, err
	})
	return pair.old, pair.made, err
}

func getKey(w *write, id string) (*apikey.Key, error) { return keyByID(w.tx, []byte(id)) }

// addKey writes a new key and its index entries.
func (s *Keys) addKey(w *write, k apikey.Key) (*apikey.Key, error) {
	if k.ID != "" && w.get(bucketKeys, []byte(k.ID)) != nil {
		return nil, authz.Errorf(authz.KindExists, "there is a key %q already", k.ID)
	}
	if there, err := decodeKey(k.Digest[:], w.get(bucketDigests, k.Digest[:])); err != nil {
		return nil, err
	} else if there != nil {
		return nil, authz.Errorf(authz.KindExists, "key %q has the same text as key %q", k.ID, there.ID)
	}
	if w.get(bucketAccounts, []byte(k.Account)) == nil {
		return nil, authz.Errorf(authz.KindNotFound, "no account %q", k.Account)
	}
	k.Version = 1
	if k.Lineage == "" {
		k.Lineage = k.ID
	}
	if err := indexKey(w, &k); err != nil {
		return nil, err
	}
	return s.putKey(w, &k)
}

// indexKey writes the index entries of a key.
func indexKey(w *write, k *apikey.Key) error {
	if err := w.put(bucketKeys, []byte(k.ID), k.Digest[:]); err != nil {
		return err
	}
	return w.put(bucketAccountKeys, joinKey(k.Account, k.ID), nil)
}

func (s *Keys) putKey(w *write, k *apikey.Key) (*apikey.Key, error) {
	sealed, err := keyrecord.SealKey(k)
	if err != nil {
		return nil, err
	}
	if err := w.put(bucketDigests, k.Digest[:], sealed); err != nil {
		return nil, err
	}
	record, err := keyrecord.Open(k.Digest[:], sealed)
	if err != nil {
		return nil, err
	}
	w.afterCommit(func() { s.db.cache.Load().PutKey(k.Digest, record) })
	return decodeKey(k.Digest[:], sealed)
}
