package bolt

import (
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// shelf holds the books that the operations of one transaction use, by quota.Bucket.Key: when many nodes lease from one
// bucket at once, its book is read and written once for all of them. It dies with the transaction.
type shelf map[string]*shelved

type shelved struct {
	book    *quota.Book
	changed bool
}

// book returns the bucket's book as the operations before this one left it. It must not be changed except by amend.
func (w *write) book(bucket quota.Bucket) (*quota.Book, error) {
	key := bucket.Key()
	if s := w.books[key]; s != nil {
		return s.book, nil
	}
	b, err := loadBook(w.tx, key)
	if err != nil {
		return nil, err
	}
	w.books[key] = &shelved{book: b}
	return b, nil
}

// amend applies a verb to the bucket's book and keeps it if it was not refused.
func (w *write) amend(bucket quota.Bucket, verb func(*quota.Book) error) error {
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

// putBack writes the books that were changed.
func (s shelf) putBack(tx *bbolt.Tx) error {
	for key, b := range s {
		if !b.changed {
			continue
		}
		text, err := encode(b.book)
		if err != nil {
			return err
		}
		if err := tx.Bucket([]byte(bucketBooks)).Put([]byte(key), text); err != nil {
			return authz.Errorf(authz.KindUnavailable, "not written: %w", err)
		}
	}
	return nil
}

func loadBook(tx *bbolt.Tx, key string) (*quota.Book, error) {
	b, err := decode[quota.Book](tx.Bucket([]byte(bucketBooks)).Get([]byte(key)))
	if b == nil {
		b = &quota.Book{}
	}
	return b, err
}

// balance asks a copy: to tell a balance turns the book to the period that is running.
func balance(b *quota.Book, bucket quota.Bucket, l authz.Limit, now time.Time) (quota.Balance, error) {
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
