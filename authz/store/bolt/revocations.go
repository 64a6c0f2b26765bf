package bolt

import (
	"context"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// Revocations is a revocation.Store. Matching a request is the business of revocation.Set, which holds them in memory.
type Revocations struct{ db *DB }

var _ revocation.Store = (*Revocations)(nil)

// Revocations returns the revocations of the file.
func (db *DB) Revocations() *Revocations { return &Revocations{db: db} }

func matcher(kind revocation.Kind, issuer, value string) []byte {
	return join(string(kind), issuer, value)
}

// Add is revocation.Store.Add.
func (s *Revocations) Add(ctx context.Context, r revocation.Record) (revocation.Record, error) {
	return mutate(ctx, s.db.commits, func(w *write) (revocation.Record, error) {
		add, key := r, matcher(r.Kind, r.Issuer, r.Value)
		old, err := decode[revocation.Record](w.get(bucketRevoked, key))
		if err != nil {
			return revocation.Record{}, err
		}
		if old != nil {
			merged, changed := revocation.Merge(*old, add)
			if !changed {
				return *old, nil
			}
			add = merged
			if err := w.delete(bucketRevisions, number(old.Revision)); err != nil {
				return revocation.Record{}, err
			}
		}
		w.wrote = true
		if add.Revision, err = w.tx.Bucket([]byte(bucketRevisions)).NextSequence(); err != nil {
			return revocation.Record{}, authz.Errorf(authz.KindUnavailable, "no revision: %w", err)
		}
		if err := w.put(bucketRevisions, number(add.Revision), key); err != nil {
			return revocation.Record{}, err
		}
		stored, err := keep(w, bucketRevoked, key, &add)
		if err != nil {
			return revocation.Record{}, err
		}
		return *stored, nil
	})
}

// Since is revocation.Store.Since.
func (s *Revocations) Since(ctx context.Context, after uint64, limit int) ([]revocation.Record, error) {
	var out []revocation.Record
	err := s.db.view(ctx, func(tx *bbolt.Tx) error {
		records := tx.Bucket([]byte(bucketRevoked))
		c := tx.Bucket([]byte(bucketRevisions)).Cursor()
		if after+1 == 0 {
			return nil // there is no later revision
		}
		for k, key := c.Seek(number(after + 1)); k != nil && len(out) < limit; k, key = c.Next() {
			r, err := decode[revocation.Record](records.Get(key))
			if err != nil {
				return err
			}
			if r == nil {
				return authz.Errorf(authz.KindUnavailable, "the data file is damaged: revocation %x is listed and not there", k)
			}
			out = append(out, *r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Get is revocation.Store.Get.
func (s *Revocations) Get(ctx context.Context, kind revocation.Kind, issuer, value string) (revocation.Record, bool, error) {
	var r *revocation.Record
	err := s.db.view(ctx, func(tx *bbolt.Tx) (err error) {
		r, err = decode[revocation.Record](tx.Bucket([]byte(bucketRevoked)).Get(matcher(kind, issuer, value)))
		return err
	})
	if err != nil || r == nil {
		return revocation.Record{}, false, err
	}
	return *r, true, nil
}
