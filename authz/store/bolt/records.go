package bolt

import (
	"bytes"
	"cmp"
	"context"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// txRecords holds the records that the operations of one transaction use. When many requests are about one holder, its record is
// read and written once for all of them.
type txRecords map[quota.HolderID]*txRecord

type txRecord struct {
	record  *quota.Record
	changed bool
}

// recordKey is the key of a holder's record.
func recordKey(h quota.HolderID) []byte { return joinKey(string(h.Per), h.Holder) }

// holderOfKey is the holder whose record has that key.
func holderOfKey(key []byte) (quota.HolderID, error) {
	per, holder, ok := splitKey(key)
	if !ok {
		return quota.HolderID{}, damaged("a record has the key %q", key)
	}
	return quota.HolderID{Per: authz.Per(per), Holder: holder}, nil
}

// loadRecord reads a holder's record, a new one if there is none.
func loadRecord(r reader, h quota.HolderID) (*quota.Record, error) {
	text := r.get(bucketHolders, recordKey(h))
	if text == nil {
		return &quota.Record{}, nil
	}
	return decodeRecord(h, text)
}

func decodeRecord(h quota.HolderID, text []byte) (*quota.Record, error) {
	if len(text) > 0 && text[0] == damagedBook {
		return nil, authz.Errorf(authz.KindUnavailable, "the record of %s %q: a book of an older version is damaged", h.Per, h.Holder)
	}
	record, err := quota.DecodeRecord(text)
	if err != nil {
		return nil, authz.Errorf(authz.KindOf(err), "the record of %s %q: %w", h.Per, h.Holder, err)
	}
	return record, nil
}

// record returns a holder's record as the earlier operations of the transaction left it.
func (w *write) record(h quota.HolderID) (*txRecord, error) {
	if r := w.records[h]; r != nil {
		return r, nil
	}
	if size := len(recordKey(h)); size > bbolt.MaxKeySize {
		return nil, authz.Errorf(authz.KindInvalid, "the name of the holder has %d bytes: at most %d can be stored", size, bbolt.MaxKeySize)
	}
	record, err := loadRecord(w, h)
	if err != nil {
		return nil, err
	}
	r := &txRecord{record: record}
	w.records[h] = r
	return r, nil
}

// changeRecord applies a verb to the record of a holder, which is stored unless the verb refuses.
func (w *write) changeRecord(h quota.HolderID, verb func(*quota.Record) error) error {
	r, err := w.record(h)
	if err != nil {
		return err
	}
	if err := verb(r.record); err != nil {
		return err
	}
	w.wrote, r.changed = true, true
	return nil
}

// changeBook is changeRecord for a verb that is about one bucket.
func (w *write) changeBook(bucket quota.Bucket, verb func(*quota.Book) error) error {
	if err := w.splitOff(bucket.HolderID(), bucket.CountKey()); err != nil {
		return err
	}
	return w.changeRecord(bucket.HolderID(), func(r *quota.Record) error { return verb(r.Book(bucket.CountKey())) })
}

// flush writes the records that were changed.
func (s txRecords) flush(w *write) error {
	var text []byte
	for h, r := range s {
		if !r.changed {
			continue
		}
		var err error
		if text, err = r.record.AppendBinary(text[:0]); err != nil {
			return err
		}
		if err := w.put(bucketHolders, recordKey(h), text); err != nil {
			return err
		}
	}
	return nil
}

// forgetChunk is how many records Forget looks at in one transaction.
const forgetChunk = 2000

// Forget is quota.Ledger.Forget. It looks at a part of the records at a time, so that no write waits for it long. It looks at
// those in the file, into which it first moves the others.
func (s *Ledger) Forget(ctx context.Context) (int, error) {
	if err := s.db.mover.move(ctx); err != nil {
		return 0, err
	}
	var (
		n      int
		from   []byte
		faults error
	)
	for {
		next, old, err := s.forgettable(ctx, from)
		if len(old) > 0 {
			var gone int
			var failed error
			gone, failed = s.forgetRecords(ctx, old)
			n, err = n+gone, cmp.Or(failed, err)
		}
		faults = cmp.Or(faults, err)
		if next == nil {
			return n, faults
		}
		from = next
	}
}

// forgettable returns the holders whose records can be forgotten, and the key to go on from, nil at the end.
func (s *Ledger) forgettable(ctx context.Context, from []byte) (next []byte, old []quota.HolderID, err error) {
	now := s.at().Time
	next, err = s.someRecords(ctx, from, func(h quota.HolderID, r *quota.Record) bool {
		if r.Forgettable(now) {
			old = append(old, h)
		}
		return true
	})
	return next, old, err
}

// someRecords calls each for up to forgetChunk records of the file, and returns the key to go on from, nil at the end. It passes over
// damaged records; the error is about the first.
func (s *Ledger) someRecords(ctx context.Context, from []byte, each func(quota.HolderID, *quota.Record) bool) (next []byte, err error) {
	var damage error
	err = s.db.view(ctx, func(tx *bbolt.Tx) error {
		seen := 0
		c := tx.Bucket([]byte(bucketHolders)).Cursor()
		for k, text := c.Seek(from); k != nil; k, text = c.Next() {
			if seen++; seen > forgetChunk {
				next = bytes.Clone(k)
				break
			}
			h, err := holderOfKey(k)
			var r *quota.Record
			if err == nil {
				r, err = decodeRecord(h, text)
			}
			if damage = cmp.Or(damage, err); err == nil && !each(h, r) {
				next = nil
				break
			}
		}
		return nil
	})
	return next, cmp.Or(err, damage)
}

// forgetRecords deletes those of the records that can still be forgotten.
func (s *Ledger) forgetRecords(ctx context.Context, holders []quota.HolderID) (int, error) {
	return mutate(ctx, s.db.ledger, func(w *write) (n int, err error) {
		now := s.at().Time
		for _, h := range holders {
			r, err := loadRecord(w, h)
			if w.records[h] != nil || err != nil || !r.Forgettable(now) {
				continue // it is in use in this transaction, or was used since we looked
			}
			if err := w.delete(bucketHolders, recordKey(h)); err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	})
}

// Stranded is quota.Ledger.Stranded. It first moves what the log has into the file.
func (s *Ledger) Stranded(ctx context.Context, each func(quota.Stranding) bool) error {
	if err := s.db.mover.move(ctx); err != nil {
		return err
	}
	var (
		at     = s.at()
		goOn   = true
		from   []byte
		faults error
	)
	for {
		next, err := s.someRecords(ctx, from, func(h quota.HolderID, r *quota.Record) bool {
			goOn = r.Stranded(h, at, each)
			return goOn
		})
		faults = cmp.Or(faults, err)
		if next == nil || !goOn {
			return faults
		}
		from = next
	}
}
