package bolt

import (
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// batch is a transaction of the ledger: the changes of a group, which make one record of the log. It reads what the group changed,
// then the layers of the overlay, then the file.
type batch struct {
	record []byte           // the changes so far
	index  map[uint64]int   // hash of bucket and key -> where the last change of it is in record
	mixed  bool             // two keys have one hash
	layers []*layer         // as they were when the transaction began
	begin  func() *bbolt.Tx // panics if the file cannot be read; the committer then answers with KindUnavailable

	tx      *bbolt.Tx // begun with the first read of the file
	buckets [codesEnd]*bbolt.Bucket
}

func (b *batch) get(bucket string, key []byte) []byte {
	code := codeOf(bucket)
	hash := hashOf(code, key)
	if c, ok := b.changed(hash, code, key); ok {
		return c.found()
	}
	if c, ok := findIn(b.layers, hash, code, key); ok {
		return c.found()
	}
	if b.buckets[code] == nil {
		if b.tx == nil {
			b.tx = b.begin()
		}
		b.buckets[code] = b.tx.Bucket([]byte(bucket))
	}
	return b.buckets[code].Get(key)
}

// changed returns the last change of a key in this transaction.
func (b *batch) changed(hash uint64, code bucketCode, key []byte) (change, bool) {
	at, ok := b.index[hash]
	if !ok {
		return change{}, false
	}
	c, _, _ := readChange(b.record[at:])
	if !b.mixed {
		return c, c.is(code, key)
	}
	found := false
	for at = 0; at < len(b.record); {
		other, size, _ := readChange(b.record[at:])
		if other.is(code, key) {
			c, found = other, true
		}
		at += size
	}
	return c, found
}

// put refuses what the file could not store.
func (b *batch) put(bucket string, key, value []byte) error {
	switch {
	case len(key) == 0:
		return putError(bucket, bolterrors.ErrKeyRequired)
	case len(key) > bbolt.MaxKeySize:
		return putError(bucket, bolterrors.ErrKeyTooLarge)
	case int64(len(value)) > bbolt.MaxValueSize:
		return putError(bucket, bolterrors.ErrValueTooLarge)
	}
	b.add(&change{bucket: codeOf(bucket), key: key, value: value})
	return nil
}

func (b *batch) delete(bucket string, key []byte) {
	b.add(&change{bucket: codeOf(bucket), deleted: true, key: key})
}

func (b *batch) add(c *change) {
	hash := hashOf(c.bucket, c.key)
	if at, ok := b.index[hash]; ok {
		if old, _, _ := readChange(b.record[at:]); !old.is(c.bucket, c.key) {
			b.mixed = true
		}
	}
	b.index[hash] = len(b.record)
	b.record = appendChange(b.record, c)
}

// reset makes the batch ready for the next transaction.
func (b *batch) reset(layers []*layer) {
	const usual = 64 << 10 // a larger one is left to the garbage collector
	if cap(b.record) > usual {
		b.record = nil
	}
	if len(b.index) > maxGroup || b.index == nil {
		b.index = make(map[uint64]int)
	}
	clear(b.index)
	b.record, b.mixed, b.layers = b.record[:0], false, layers
}

// end ends the reading of the file.
func (b *batch) end() {
	if b.tx != nil {
		_ = b.tx.Rollback()
		b.tx = nil
	}
	b.buckets = [codesEnd]*bbolt.Bucket{}
	b.layers = nil
}
