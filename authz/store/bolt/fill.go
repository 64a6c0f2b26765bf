package bolt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/transfer"
)

// formatFilling is the format of a file that a copy is being written into. No version opens it.
const formatFilling = "an unfinished copy"

// metaCopy, in bucketMeta, is the transfer.Progress of the copy.
var metaCopy = []byte("copy")

// Filling is a file that a copy is written into. Its methods are called by one goroutine, but for Read.
type Filling struct {
	entries
	path string
	bolt *bbolt.DB
	from transfer.Info
}

var _ transfer.Target = (*Filling)(nil)

// Fill opens a file to be filled, and makes it if there is none.
//
// The error is ErrInUse if another process uses the file, and of KindConflict if there is one that is no unfinished copy.
func Fill(path string) (*Filling, error) {
	isNew, err := prepare(path)
	if err != nil {
		return nil, err
	}
	if isNew {
		if err := createFilling(path); err != nil {
			return nil, err
		}
	}
	file, err := openFile(path, bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType, OpenFile: os.OpenFile})
	if err != nil {
		return nil, err
	}
	f := &Filling{path: path, bolt: file}
	f.view = func(ctx context.Context, read func(*bbolt.Tx) error) error {
		return viewFile(ctx, file, read)
	}
	if err := f.view(context.Background(), checkFilling); err != nil {
		_ = file.Close()
		return nil, authz.Errorf(authz.KindOf(err), "%s: %w", path, err)
	}
	return f, nil
}

func checkFilling(tx *bbolt.Tx) error {
	if err := checkPages(tx); err != nil {
		return err
	}
	meta := tx.Bucket([]byte(bucketMeta))
	if meta == nil || string(meta.Get([]byte("format"))) != formatFilling {
		return authz.Errorf(authz.KindConflict, "this is no unfinished copy: nothing is written over it")
	}
	return nil
}

// createFilling makes a file that is whole when it appears.
func createFilling(path string) error {
	if err := noLog(path); err != nil {
		return err
	}
	return newFile(path, func(temp string) error {
		db, err := openFile(temp, bbolt.Options{OpenFile: os.OpenFile})
		if err != nil {
			return err
		}
		return errors.Join(db.Update(func(tx *bbolt.Tx) error { return layOutFilling(tx, transfer.Info{}) }), db.Close())
	})
}

// noLog refuses a place where a write-ahead log is left.
func noLog(path string) error {
	if left, err := os.ReadDir(logFolder(path)); len(left) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return authz.Errorf(authz.KindConflict, "there is a write-ahead log without its file, %s: move it away", logFolder(path))
	}
	return nil
}

// layOutFilling makes an empty file to be filled from a source, whatever was there.
func layOutFilling(tx *bbolt.Tx, from transfer.Info) error {
	for _, name := range bucketNames() {
		if err := tx.DeleteBucket([]byte(name)); err != nil && !errors.Is(err, bolterrors.ErrBucketNotFound) {
			return authz.Errorf(authz.KindUnavailable, "cannot remove bucket %q: %w", name, err)
		}
	}
	w := &write{tx: tx}
	if err := layOut(w, from.Pepper); err != nil {
		return err
	}
	return errors.Join(
		w.put(bucketMeta, []byte("format"), []byte(formatFilling)),
		putJSON(w, bucketMeta, metaCopy, &transfer.Progress{Store: from.Store, State: from.State}),
	)
}

// update runs a transaction. A panic on damaged pages becomes an error.
func (f *Filling) update(run func(w *write) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = authz.Errorf(authz.KindUnavailable, "%s is damaged: %v", f.path, p)
		}
	}()
	err = f.bolt.Update(func(tx *bbolt.Tx) error { return run(&write{tx: tx}) })
	var ours *authz.Error
	if err != nil && !errors.As(err, &ours) {
		return authz.Errorf(authz.KindUnavailable, "writing to %s: %w", f.path, err)
	}
	return err
}

// Begin is transfer.Target.Begin.
func (f *Filling) Begin(ctx context.Context, from transfer.Info) (transfer.Progress, error) {
	p := new(transfer.Progress)
	if err := f.view(ctx, func(tx *bbolt.Tx) error {
		kept, err := decode[transfer.Progress](tx.Bucket([]byte(bucketMeta)).Get(metaCopy))
		if kept != nil {
			p = kept
		}
		return err
	}); err != nil {
		return transfer.Progress{}, err
	}
	f.from = from
	switch again, err := p.GoesOn(from); {
	case err != nil:
		return transfer.Progress{}, authz.Errorf(authz.KindOf(err), "%s: %w", f.path, err)
	case again:
		return *p, nil
	}
	return transfer.Progress{Store: from.Store, State: from.State}, f.update(func(w *write) error { return layOutFilling(w.tx, from) })
}

// fillPercent is how full pages are left: nearly all records come in order, and none is changed before a server opens the file.
const fillPercent = 0.9

// Write is transfer.Target.Write.
func (f *Filling) Write(_ context.Context, batch []transfer.Entry, p transfer.Progress) error {
	return f.update(func(w *write) error {
		for i := range batch {
			if err := putEntry(w.tx, &batch[i]); err != nil {
				return err
			}
		}
		dropPages(w.tx)
		return putJSON(w, bucketMeta, metaCopy, &p)
	})
}

// putEntry writes the record of an entry. The neutral form of each is the one that a file has, but for some keys.
func putEntry(tx *bbolt.Tx, e *transfer.Entry) error {
	bucket, key := sectionBuckets[e.Section], e.Key
	if e.Section == transfer.Marks {
		bucket, key = bucketMeta, metaMark
	}
	b := tx.Bucket([]byte(bucket))
	b.FillPercent = fillPercent
	return putError(bucket, b.Put(key, e.Value))
}

// Complete is transfer.Target.Complete. It makes the indexes.
func (f *Filling) Complete(ctx context.Context) error {
	if err := f.update(func(w *write) error {
		for _, name := range []string{bucketKeys, bucketAccountKeys, bucketRevisions, bucketExpiries, bucketSettledAt} {
			err := w.tx.DeleteBucket([]byte(name))
			if err == nil {
				_, err = w.tx.CreateBucket([]byte(name))
			}
			if err != nil {
				return authz.Errorf(authz.KindUnavailable, "cannot make bucket %q: %w", name, err)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for _, index := range []func(context.Context) error{f.indexKeys, f.indexRevocations, f.indexSettled} {
		if err := index(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f *Filling) indexKeys(ctx context.Context) error {
	return f.index(ctx, bucketDigests, []string{bucketKeys, bucketAccountKeys}, func(digest, sealed []byte, out []*sorter) error {
		k, err := decodeKey(digest, sealed)
		if err != nil {
			return err
		}
		return errors.Join(out[0].add([]byte(k.ID), digest), out[1].add(joinKey(k.Account, k.ID), nil))
	})
}

func (f *Filling) indexRevocations(ctx context.Context) error {
	last := f.from.Revision
	err := f.index(ctx, bucketRevoked, []string{bucketRevisions, bucketExpiries}, func(key, text []byte, out []*sorter) error {
		r, err := decode[revocation.Record](text)
		if err != nil {
			return err
		}
		last = max(last, r.Revision)
		if !r.ExpiresAt.IsZero() {
			err = out[1].add(expiry(r.ExpiresAt, key), nil)
		}
		return errors.Join(err, out[0].add(numberKey(r.Revision), key))
	})
	if err != nil {
		return err
	}
	return f.update(func(w *write) error {
		if err := w.tx.Bucket([]byte(bucketRevisions)).SetSequence(last); err != nil {
			return authz.Errorf(authz.KindUnavailable, "writing to %q: %w", bucketRevisions, err)
		}
		return setIndexedUntil(w, last)
	})
}

func (f *Filling) indexSettled(ctx context.Context) error {
	return f.index(ctx, bucketSettled, []string{bucketSettledAt}, func(id, text []byte, out []*sorter) error {
		r, err := decode[settled](text)
		if err != nil {
			return err
		}
		return out[0].add(settledAt(r.At, string(id)), nil)
	})
}

// index fills indexes with what each adds for the records of a bucket.
func (f *Filling) index(ctx context.Context, bucket string, indexes []string, each func(key, value []byte, out []*sorter) error) error {
	var out []*sorter
	for range indexes {
		s := newSorter(filepath.Dir(f.path))
		defer s.close()
		out = append(out, s)
	}
	err := inChunks(func(read func(*bbolt.Tx) error) error { return f.view(ctx, read) }, bucket, func(k, v []byte) error { return each(k, v, out) })
	for i, name := range indexes {
		if err == nil {
			err = f.fillIndex(ctx, name, out[i])
		}
	}
	return err
}

// indexChunk is how many records of an index are written in one transaction.
const indexChunk = 20_000

func (f *Filling) fillIndex(ctx context.Context, name string, s *sorter) error {
	var keys, values [][]byte
	flush := func() error {
		err := f.update(func(w *write) error {
			b := w.tx.Bucket([]byte(name))
			b.FillPercent = fillPercent
			for i := range keys {
				if err := b.Put(keys[i], values[i]); err != nil {
					return putError(name, err)
				}
			}
			dropPages(w.tx)
			return nil
		})
		keys, values = keys[:0], values[:0]
		return cmp.Or(err, ctx.Err())
	}
	if err := s.each(func(key, value []byte) error {
		keys, values = append(keys, bytes.Clone(key)), append(values, bytes.Clone(value))
		if len(keys) < indexChunk {
			return nil
		}
		return flush()
	}); err != nil {
		return err
	}
	return flush()
}

// Finish is transfer.Target.Finish. It checks the whole file first.
func (f *Filling) Finish(ctx context.Context) error {
	if err := f.view(ctx, func(tx *bbolt.Tx) error { return checkWritten(tx, partFormat, partLog) }); err != nil {
		return err
	}
	return f.update(func(w *write) error {
		return errors.Join(putFormat(w), w.delete(bucketMeta, metaCopy))
	})
}

// Close closes the file. A copy that was not finished goes on when it is filled again.
func (f *Filling) Close() error {
	if err := f.bolt.Close(); err != nil {
		return authz.Errorf(authz.KindUnavailable, "closing %s: %w", f.path, err)
	}
	return nil
}
