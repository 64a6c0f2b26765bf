package bolt

import (
	"bytes"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// Older versions kept a book of JSON for each bucket. Open makes records of them (gatherBooks). Before that, several buckets of one name
// shared a book: which they are is known when they are asked for, and such a book is taken apart then (splitOff).

// booksAtOnce is how many books one transaction gathers.
const booksAtOnce = 10_000

// gatherBooks moves books of an older version into the records of their holders, and reports whether there may be more. What nodes
// held is stranded: none of them lives. Books of rates are dropped.
func gatherBooks(w *write) (more bool, err error) {
	books := w.tx.Bucket([]byte(bucketBooks))
	var done [][]byte
	c := books.Cursor()
	for k, text := c.First(); k != nil; k, text = c.Next() {
		bucket, err := quota.ParseKey(string(k))
		if err != nil {
			continue // shared by several buckets
		}
		if len(done) == booksAtOnce {
			more = true
			break
		}
		done = append(done, bytes.Clone(k))
		if quota.IsRate(&authz.Limit{Window: bucket.Window}) {
			continue
		}
		if err := gather(w, bucket, text); err != nil {
			return false, err
		}
	}
	for _, k := range done {
		w.wrote = true
		if err := books.Delete(k); err != nil {
			return false, putError(bucketBooks, err)
		}
	}
	return more, nil
}

// gather adds a book to the record of its holder, in the file. If the book is damaged, so is the record then: what the holder used is
// not known, so nothing may be leased to it until an operator has looked. All others are not affected.
func gather(w *write, bucket quota.Bucket, text []byte) error {
	holders := w.tx.Bucket([]byte(bucketHolders))
	key := recordKey(bucket.HolderID())
	record := &quota.Record{}
	if old := holders.Get(key); old != nil {
		var err error
		if record, err = quota.DecodeRecord(old); err != nil {
			return nil // it is damaged
		}
	}
	var out []byte
	book, err := decode[quota.Book](text)
	if err == nil {
		*record.Book(bucket.CountKey()) = *book
		out, err = record.AppendBinary(nil)
	}
	if err != nil {
		out = append([]byte{damagedBook}, text...)
	}
	w.wrote = true
	return putError(bucketHolders, holders.Put(key, out))
}

// damagedBook stands before a book that could not be read, in the place of the record's version. No version has that number.
const damagedBook = 0

// splitOff takes the count of a holder out of a shared book.
func (w *write) splitOff(h quota.HolderID, count string) error {
	if !w.sharedBooks {
		return nil
	}
	r, err := w.record(h)
	if err != nil || r.record.Has(count) {
		return err
	}
	bucket, book, rest, err := sharedBook(w, h, count)
	if err != nil || book == nil {
		return err
	}
	*r.record.Book(count) = *book
	r.changed, w.wrote = true, true
	key := []byte(bucket.LegacyKey())
	if rest.Empty() {
		return w.delete(bucketBooks, key)
	}
	return putJSON(w, bucketBooks, key, rest)
}

// sharedBook returns the book of a count that is still in a shared book, and that one without it. It is nil if there is none.
func sharedBook(r reader, h quota.HolderID, count string) (bucket quota.Bucket, book, rest *quota.Book, err error) {
	if bucket, err = h.Bucket(count); err != nil {
		return bucket, nil, nil, nil // a test's
	}
	if rest, err = decode[quota.Book](r.get(bucketBooks, []byte(bucket.LegacyKey()))); rest == nil || err != nil {
		return bucket, nil, nil, err
	}
	return bucket, rest.Split(bucket), rest, nil
}

// hasBooks reports whether there are books of an older version.
func hasBooks(tx *bbolt.Tx) bool {
	k, _ := tx.Bucket([]byte(bucketBooks)).Cursor().First()
	return k != nil
}
