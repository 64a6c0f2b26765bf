package bolt

import (
	"encoding/json"
	"errors"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// write is one operation's view of the transaction that it shares with others. A transaction writes either the buckets of the
// ledger, through the write-ahead log, or all others, in the file.
type write struct {
	tx          *bbolt.Tx // of the file; nil in a transaction of the ledger
	batch       *batch    // of the ledger; nil in a transaction of the file
	records     txRecords // of the whole transaction
	sharedBooks bool      // DB.sharedBooks
	wrote       bool      // this operation has changed something in the transaction
	moved       bool      // and all of it is in the write-ahead log already
	after       []func()  // run when the transaction is durable
}

// afterCommit has a function run when the write is durable and before it is acknowledged. It must not fail.
func (w *write) afterCommit(fn func()) { w.after = append(w.after, fn) }

// get returns the value of a key, nil if there is none. It is valid until the next put.
func (w *write) get(bucket string, key []byte) []byte {
	if w.batch != nil {
		return w.batch.get(bucket, key)
	}
	return w.tx.Bucket([]byte(bucket)).Get(key)
}

func (w *write) put(bucket string, key, value []byte) error {
	if err := w.mayWrite(bucket); err != nil {
		return err
	}
	w.wrote = true
	if w.batch != nil {
		return w.batch.put(bucket, key, value)
	}
	b := w.tx.Bucket([]byte(bucket))
	return putError(bucket, errors.Join(b.Put(key, value), newVersion(bucket, b)))
}

// mayWrite refuses a bucket that this transaction cannot write: a write would be lost, or not be atomic.
func (w *write) mayWrite(bucket string) error {
	if (codeOf(bucket) != 0) != (w.batch != nil) {
		return authz.Errorf(authz.KindUnavailable, "not written: %q cannot be written in this transaction", bucket)
	}
	return nil
}

func putError(bucket string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrKeyRequired), errors.Is(err, bolterrors.ErrKeyTooLarge), errors.Is(err, bolterrors.ErrValueTooLarge):
		return authz.Errorf(authz.KindInvalid, "cannot be stored in %q: %w", bucket, err)
	default:
		return authz.Errorf(authz.KindUnavailable, "writing to %q: %w", bucket, err)
	}
}

func (w *write) delete(bucket string, key []byte) error {
	if err := w.mayWrite(bucket); err != nil {
		return err
	}
	w.wrote = true
	if w.batch != nil {
		w.batch.delete(bucket, key)
		return nil
	}
	b := w.tx.Bucket([]byte(bucket))
	if err := errors.Join(b.Delete(key), newVersion(bucket, b)); err != nil {
		return authz.Errorf(authz.KindUnavailable, "deleting from %q: %w", bucket, err)
	}
	return nil
}

func putJSON(w *write, bucket string, key []byte, v any) error {
	text, err := encode(v)
	if err != nil {
		return err
	}
	return w.put(bucket, key, text)
}

func encode(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, authz.Errorf(authz.KindInvalid, "cannot be written as JSON: %w", err)
	}
	return text, nil
}

// decode reads a record, nil if there is none.
func decode[T any](text []byte) (*T, error) {
	if text == nil {
		return nil, nil
	}
	v := new(T)
	if err := json.Unmarshal(text, v); err != nil {
		return nil, authz.Errorf(authz.KindUnavailable, "a record in the data file is damaged: %w", err)
	}
	return v, nil
}
