package bolt

import (
	"bytes"
	"context"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// txBooks holds the books that the operations of one transaction use, by quota.Bucket.Key. When many nodes lease from one bucket
// at once, its book is read and written once for all of them.
type txBooks map[string]*txBook

type txBook struct {
	book    *quota.Book
	changed bool
}

// book returns the bucket's book as the earlier operations of the transaction left it. Only changeBook may change it.
func (w *write) book(bucket quota.Bucket) (*quota.Book, error) {
	key := bucket.Key()
	if s := w.books[key]; s != nil {
		return s.book, nil
	}
	b, old, err := loadBook(w, bucket)
	if err != nil {
		return nil, err
	}
	w.books[key] = &txBook{book: b, changed: old != nil}
	if old != nil { // a later operation of this transaction must not split off the same counts again
		return b, w.putLegacyBook(bucket, old)
	}
	return b, nil
}

// changeBook applies a verb to the bucket's book, which is stored unless the verb refuses.
func (w *write) changeBook(bucket quota.Bucket, verb func(*quota.Book) error) error {
	key := bucket.Key()
	if len(key) > bbolt.MaxKeySize {
		return authz.Errorf(authz.KindInvalid, "the name of the bucket has %d bytes: at most %d can be stored", len(key), bbolt.MaxKeySize)
	}
	b, err := w.book(bucket)
	if err != nil {
		return err
	}
	if err := verb(b); err != nil {
		return err
	}
	w.wrote, w.books[key].changed = true, true
	return nil
}

// flush writes the books that were changed.
func (s txBooks) flush(w *write) error {
	for key, b := range s {
		if !b.changed {
			continue
		}
		text, err := encode(b.book)
		if err != nil {
			return err
		}
		if err := w.put(bucketBooks, []byte(key), text); err != nil {
			return err
		}
	}
	return nil
}

// loadBook returns the bucket's book, a new one if there is none. Older versions kept several buckets in one book: if this one is
// still in such a book, old is that book without it.
func loadBook(r reader, bucket quota.Bucket) (b, old *quota.Book, err error) {
	if b, err = decode[quota.Book](r.get(bucketBooks, []byte(bucket.Key()))); b != nil || err != nil {
		return b, nil, err
	}
	if old, err = decode[quota.Book](r.get(bucketBooks, []byte(bucket.LegacyKey()))); old == nil || err != nil {
		return &quota.Book{}, nil, err
	}
	if b = old.Split(bucket); b == nil {
		return &quota.Book{}, nil, nil
	}
	return b, old, nil
}

// putLegacyBook writes what a bucket left of a book of an older version.
func (w *write) putLegacyBook(bucket quota.Bucket, old *quota.Book) error {
	key := []byte(bucket.LegacyKey())
	if old.Empty() {
		return w.delete(bucketBooks, key)
	}
	_, err := putJSON(w, bucketBooks, key, old)
	return err
}

// forgetChunk is how many books Forget looks at in one transaction.
const forgetChunk = 2000

// Forget is quota.Ledger.Forget. It looks at a part of the books at a time, so that no write waits for it long. It looks at those
// in the file, into which it first moves the others.
func (s *Ledger) Forget(ctx context.Context) (int, error) {
	if err := s.db.mover.move(ctx); err != nil {
		return 0, err
	}
	n, from := 0, []byte(nil)
	for {
		next, old, err := s.forgettable(ctx, from)
		if err == nil && len(old) > 0 {
			var gone int
			gone, err = s.forgetBooks(ctx, old)
			n += gone
		}
		if err != nil || next == nil {
			return n, err
		}
		from = next
	}
}

// forgettable returns the keys of books that can be forgotten, and the key to go on from, nil at the end.
func (s *Ledger) forgettable(ctx context.Context, from []byte) (next []byte, old [][]byte, err error) {
	err = s.db.view(ctx, func(tx *bbolt.Tx) error {
		now, seen := s.clock(), 0
		c := tx.Bucket([]byte(bucketBooks)).Cursor()
		for k, text := c.Seek(from); k != nil; k, text = c.Next() {
			if seen++; seen > forgetChunk {
				next = bytes.Clone(k)
				break
			}
			b, err := decode[quota.Book](text)
			if err != nil {
				return err
			}
			if b.Forgettable(now) {
				old = append(old, bytes.Clone(k))
			}
		}
		return nil
	})
	return next, old, err
}

// forgetBooks deletes those of the books that can still be forgotten.
func (s *Ledger) forgetBooks(ctx context.Context, keys [][]byte) (int, error) {
	return mutate(ctx, s.db.ledger, func(w *write) (n int, err error) {
		now := s.clock()
		for _, key := range keys {
			b, err := decode[quota.Book](w.get(bucketBooks, key))
			if w.books[string(key)] != nil || err != nil || b == nil || !b.Forgettable(now) {
				continue // it is in use in this transaction, or was used since we looked
			}
			if err := w.delete(bucketBooks, key); err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	})
}

// balanceOf asks a copy of the book: Balance moves a book on to the current period.
func balanceOf(b *quota.Book, bucket quota.Bucket, l authz.Limit, now time.Time) (quota.Balance, error) {
	text, err := encode(b)
	if err != nil {
		return quota.Balance{}, err
	}
	b, err = decode[quota.Book](text)
	if err != nil {
		return quota.Balance{}, err
	}
	return b.Balance(bucket, l, now), nil
}
