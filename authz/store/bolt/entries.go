package bolt

import (
	"bytes"
	"context"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/transfer"
)

// entries reads a file in the neutral form. The order is that of the file's keys, and the cursor is the last key.
type entries struct {
	view  func(context.Context, func(*bbolt.Tx) error) error
	added [codesEnd][]change // what the write-ahead log has, by key
}

// sectionBuckets are the buckets that have the entries of a section. The others are derived from them.
var sectionBuckets = map[transfer.Section]string{
	transfer.Accounts: bucketAccounts, transfer.Keys: bucketDigests, transfer.Revocations: bucketRevoked,
	transfer.Holders: bucketHolders, transfer.Journal: bucketJournal, transfer.Settled: bucketSettled,
}

// Read is transfer.Source.Read.
func (s *entries) Read(ctx context.Context, section transfer.Section, from []byte, limit int, each func(*transfer.Entry) error) (next []byte, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		defer dropPages(tx)
		if section == transfer.Marks {
			return readMark(tx, each)
		}
		bucket := sectionBuckets[section]
		n := 0
		return s.walk(tx, bucket, from, func(k, v []byte) (more bool, err error) {
			e, err := entryOf(section, k, v)
			if err != nil {
				return false, authz.Errorf(authz.KindOf(err), "%q in %q: %w: see tollkeeper doctor ledger", k, bucket, err)
			}
			if n++; n == limit {
				next = bytes.Clone(k)
			}
			return n < limit, each(&e)
		})
	})
	return next, err
}

// walk calls each for the records of a bucket after a key, until it returns false.
func (s *entries) walk(tx *bbolt.Tx, bucket string, from []byte, each func(k, v []byte) (more bool, err error)) error {
	c := tx.Bucket([]byte(bucket)).Cursor()
	k, v := c.Seek(from)
	if k != nil && bytes.Equal(k, from) {
		k, v = c.Next()
	}
	added := s.added[codeOf(bucket)]
	at, found := slices.BinarySearchFunc(added, from, func(c change, key []byte) int { return bytes.Compare(c.key, key) })
	if found {
		at++
	}
	added = added[at:]
	for k != nil || len(added) > 0 {
		var key, value []byte
		switch order := compareNext(k, added); {
		case order < 0:
			key, value = k, v
			k, v = c.Next()
		default:
			if order == 0 { // the log has a later value
				k, v = c.Next()
			}
			c := &added[0]
			if added = added[1:]; c.deleted {
				continue
			}
			key, value = c.key, c.value
		}
		if more, err := each(key, value); err != nil || !more {
			return err
		}
	}
	return nil
}

// compareNext is below 0 if the key of the file comes before that of the log, and above 0 if it comes after it.
func compareNext(k []byte, added []change) int {
	switch {
	case len(added) == 0:
		return -1
	case k == nil:
		return 1
	}
	return bytes.Compare(k, added[0].key)
}

// entryOf is the entry of a record.
func entryOf(s transfer.Section, key, value []byte) (transfer.Entry, error) {
	switch s {
	case transfer.Accounts:
		return entryFrom(transfer.OfAccount)(decodeAccount(key, value))
	case transfer.Keys:
		return entryFrom(transfer.OfKey)(decodeKey(key, value))
	case transfer.Revocations:
		r, err := decode[revocation.Record](value)
		if err != nil {
			return transfer.Entry{}, err
		}
		return transfer.OfRevocation(r)
	case transfer.Holders:
		h, err := holderOfKey(key)
		var r *quota.Record
		if err == nil {
			r, err = decodeRecord(h, value)
		}
		if err != nil {
			return transfer.Entry{}, err
		}
		return transfer.OfHolder(h, r)
	case transfer.Journal:
		e, err := decode[entry](value)
		if err != nil {
			return transfer.Entry{}, err
		}
		return transfer.OfUsed(string(key), transfer.Used(*e))
	default:
		r, err := decode[settled](value)
		if err != nil {
			return transfer.Entry{}, err
		}
		return transfer.OfSettlement(string(key), transfer.Settlement(*r))
	}
}

func entryFrom[T any](of func(*T) transfer.Entry) func(*T, error) (transfer.Entry, error) {
	return func(v *T, err error) (transfer.Entry, error) {
		if err != nil {
			return transfer.Entry{}, err
		}
		return of(v), nil
	}
}

func readMark(tx *bbolt.Tx, each func(*transfer.Entry) error) error {
	m, err := decode[revocation.Mark](tx.Bucket([]byte(bucketMeta)).Get(metaMark))
	if err != nil || m == nil {
		return err
	}
	e, err := transfer.OfMark(m)
	if err != nil {
		return err
	}
	return each(&e)
}
