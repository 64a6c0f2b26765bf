package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// Revocations is a revocation.Store. Requests are matched by a revocation.Set, which holds the records in memory.
type Revocations struct{ db *DB }

var _ revocation.Store = (*Revocations)(nil)

// Revocations returns the revocations of the file.
func (db *DB) Revocations() *Revocations { return &Revocations{db: db} }

func revokedKey(kind revocation.Kind, issuer, value string) []byte {
	return joinKey(string(kind), issuer, value)
}

// Add is revocation.Store.Add.
func (s *Revocations) Add(ctx context.Context, r revocation.Record) (revocation.Record, error) {
	return mutate(ctx, s.db.commits, func(w *write) (revocation.Record, error) {
		add, key := r, revokedKey(r.Kind, r.Issuer, r.Value)
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
			if err := unindexRevocation(w, key, old); err != nil {
				return revocation.Record{}, err
			}
		}
		w.wrote = true
		if add.Revision, err = w.tx.Bucket([]byte(bucketRevisions)).NextSequence(); err != nil {
			return revocation.Record{}, authz.Errorf(authz.KindUnavailable, "no revision: %w", err)
		}
		text, err := encode(&add)
		if err != nil {
			return revocation.Record{}, err
		}
		stored, err := decode[revocation.Record](text)
		if err != nil {
			return revocation.Record{}, err
		}
		if err := w.put(bucketRevoked, key, text); err != nil {
			return revocation.Record{}, err
		}
		return *stored, indexRevocation(w, key, stored)
	})
}

// indexRevocation adds a record to the indexes.
func indexRevocation(w *write, key []byte, r *revocation.Record) error {
	if err := w.put(bucketRevisions, numberKey(r.Revision), key); err != nil {
		return err
	}
	if !r.ExpiresAt.IsZero() {
		if err := w.put(bucketExpiries, expiry(r.ExpiresAt, key), nil); err != nil {
			return err
		}
	}
	return setIndexedUntil(w, r.Revision)
}

// unindexRevocation removes a record from the indexes.
func unindexRevocation(w *write, key []byte, r *revocation.Record) error {
	if err := w.delete(bucketRevisions, numberKey(r.Revision)); err != nil {
		return err
	}
	if r.ExpiresAt.IsZero() {
		return nil
	}
	return w.delete(bucketExpiries, expiry(r.ExpiresAt, key))
}

// Prune is revocation.Store.Prune.
func (s *Revocations) Prune(ctx context.Context, now time.Time, limit int) (int, error) {
	return mutate(ctx, s.db.commits, func(w *write) (int, error) {
		expiries := w.tx.Bucket([]byte(bucketExpiries)).Cursor()
		end := expiry(now, nil)
		n := 0
		for n < limit {
			entry, _ := expiries.First()
			if entry == nil || bytes.Compare(entry, end) >= 0 {
				break
			}
			forgotten, err := forgetRevoked(w, bytes.Clone(entry))
			if err != nil {
				return 0, err
			}
			if forgotten {
				n++
			}
		}
		return n, nil
	})
}

// forgetRevoked removes an entry of bucketExpiries and its record. If the two disagree, only the entry is removed: the record
// decides how long it lives.
func forgetRevoked(w *write, entry []byte) (bool, error) {
	if len(entry) < expirySize {
		return false, w.delete(bucketExpiries, entry)
	}
	key := entry[expirySize:]
	r, err := decode[revocation.Record](w.get(bucketRevoked, key))
	if err != nil {
		return false, err
	}
	if r == nil || !bytes.Equal(expiry(r.ExpiresAt, key), entry) {
		return false, w.delete(bucketExpiries, entry)
	}
	if err := unindexRevocation(w, key, r); err != nil {
		return false, err
	}
	return true, w.delete(bucketRevoked, key)
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
		for k, key := c.Seek(numberKey(after + 1)); k != nil && len(out) < limit; k, key = c.Next() {
			r, err := decode[revocation.Record](records.Get(key))
			if err != nil {
				return err
			}
			if r == nil {
				return authz.Errorf(authz.KindUnavailable, "the data file is damaged: revocation %x is listed and not there", k)
			}
			out = append(out, *r)
		}
		if len(out) == limit { // a caller that reads page after page walks through the whole file
			dropPages(tx)
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
		r, err = decode[revocation.Record](tx.Bucket([]byte(bucketRevoked)).Get(revokedKey(kind, issuer, value)))
		return err
	})
	if err != nil || r == nil {
		return revocation.Record{}, false, err
	}
	return *r, true, nil
}

var _ revocation.Marks = (*Revocations)(nil)

// metaMark is the key of the mark in bucketMeta.
var metaMark = []byte("revocations_mark")

// Mark is revocation.Marks.Mark.
func (s *Revocations) Mark(ctx context.Context) (revocation.Mark, error) {
	var m *revocation.Mark
	err := s.db.view(ctx, func(tx *bbolt.Tx) (err error) {
		m, err = decode[revocation.Mark](tx.Bucket([]byte(bucketMeta)).Get(metaMark))
		return err
	})
	if err != nil || m == nil {
		return revocation.Mark{}, err
	}
	return *m, nil
}

// SetMark is revocation.Marks.SetMark.
func (s *Revocations) SetMark(ctx context.Context, m revocation.Mark) error {
	_, err := mutate(ctx, s.db.commits, func(w *write) (struct{}, error) {
		return struct{}{}, putJSON(w, bucketMeta, metaMark, &m)
	})
	return err
}

// expirySize is the length of the instant in a key of bucketExpiries.
const expirySize = 8 + 4

// expiry is the key in bucketExpiries for the record with that key. Such keys sort by instant, in any year.
func expiry(at time.Time, key []byte) []byte {
	const sign = 1 << 63 // so that instants before 1970 sort before the others
	out := make([]byte, 0, expirySize+len(key))
	out = binary.BigEndian.AppendUint64(out, uint64(at.Unix())^sign)
	out = binary.BigEndian.AppendUint32(out, uint32(at.Nanosecond()))
	return append(out, key...)
}

// The sequence of bucketExpiries is the last revision that it has indexed. Older versions do not know the bucket and write
// records without it: if it lags behind, Open rebuilds it.

func setIndexedUntil(w *write, revision uint64) error {
	if err := w.tx.Bucket([]byte(bucketExpiries)).SetSequence(revision); err != nil {
		return authz.Errorf(authz.KindUnavailable, "writing to %q: %w", bucketExpiries, err)
	}
	return nil
}

func expiriesIndexed(tx *bbolt.Tx) bool {
	expiries := tx.Bucket([]byte(bucketExpiries))
	return expiries != nil && expiries.Sequence() == tx.Bucket([]byte(bucketRevisions)).Sequence()
}

// rebuildExpiries makes bucketExpiries anew if it lags behind.
func rebuildExpiries(w *write) error {
	if expiriesIndexed(w.tx) {
		return nil
	}
	w.wrote = true
	if w.tx.Bucket([]byte(bucketExpiries)) != nil {
		if err := w.tx.DeleteBucket([]byte(bucketExpiries)); err != nil {
			return authz.Errorf(authz.KindUnavailable, "cannot remove bucket %q: %w", bucketExpiries, err)
		}
	}
	if _, err := w.tx.CreateBucket([]byte(bucketExpiries)); err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot make bucket %q: %w", bucketExpiries, err)
	}
	entries, err := expiriesOf(w.tx)
	if err != nil {
		return err
	}
	slices.SortFunc(entries, bytes.Compare) // in random order, a million of them would take bbolt hours
	for _, entry := range entries {
		if err := w.put(bucketExpiries, entry, nil); err != nil {
			return err
		}
	}
	return setIndexedUntil(w, w.tx.Bucket([]byte(bucketRevisions)).Sequence())
}

// expiriesOf is what bucketExpiries should have, in no order.
func expiriesOf(tx *bbolt.Tx) (entries [][]byte, err error) {
	_, err = eachRecord(&snapshot{tx: tx}, bucketRevoked, func(key []byte, r *revocation.Record) error {
		if !r.ExpiresAt.IsZero() {
			entries = append(entries, expiry(r.ExpiresAt, key))
		}
		return nil
	})
	return entries, err
}
