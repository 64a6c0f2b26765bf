package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt/wal"
)

// mover brings what is in the write-ahead log into the file, in the background.
//
//  1. The newest layer of the overlay is frozen.
//  2. The frozen layers are written to the file by key, a chunk in each transaction, in the lane of the file.
//  3. The last of these transactions notes the number of the last record that is in the file now.
//  4. The layers are dropped, then the segments of the log.
//
// A crash in between loses nothing, and a record that is moved again changes nothing: it holds values, not differences. Open skips
// records up to the number of 3.
type mover struct {
	overlay *overlay
	wal     *wal.Log
	file    *committer
	chunk   int
	now     func() time.Time
	log     *slog.Logger

	wake chan struct{} // has room for one
	quit chan struct{}
	done chan struct{}

	mu sync.Mutex // held while records are moved
}

const (
	// moveFill is how full pages are left when they are split. Records come in the order of their keys and many at a time: with
	// bbolt's 0.5, half as many bytes again are written for each, and the file is half as large again.
	moveFill = 0.8
	// moveEvery is how long a record stays in the log if there are few. It bounds how much Open has to read, and how long
	// settlements are kept.
	moveEvery = 10 * time.Minute
	// moveRetry is how long the mover waits after the file did not take the records.
	moveRetry = time.Second
)

// soon has the records moved in the background.
func (m *mover) soon() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run is the mover's goroutine.
func (m *mover) run() {
	defer close(m.done)
	tick := time.NewTicker(moveEvery)
	defer tick.Stop()
	for {
		select {
		case <-m.wake:
		case <-tick.C:
		case <-m.quit:
			return
		}
		if err := m.move(context.Background()); err == nil {
			continue
		}
		select { // the lane of the file has logged why
		case <-time.After(moveRetry):
			m.soon()
		case <-m.quit:
			return
		}
	}
}

// stop ends the goroutine.
func (m *mover) stop() {
	close(m.quit)
	<-m.done
}

// move brings everything into the file that was acknowledged before.
func (m *mover) move(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.overlay.takes.Add(1)
	layers := m.overlay.freeze()
	if len(layers) == 0 {
		return nil
	}
	changes := sorted(layers)
	last := layers[len(layers)-1].last
	for len(changes) > 0 {
		chunk := changes[:min(m.chunk, len(changes))]
		changes = changes[len(chunk):]
		through := last
		if len(changes) > 0 {
			through = 0
		}
		if err := m.file.do(ctx, func(w *write) error { return m.write(w, chunk, through) }); err != nil {
			return err
		}
	}
	m.overlay.drop(len(layers))
	if err := m.wal.Drop(last); err != nil { // they are dropped with the next ones
		m.log.Warn("cannot remove a part of the write-ahead log", "error", err)
	}
	return m.forget(ctx)
}

// write writes a chunk. If it is the last, through is the number of the last record.
func (m *mover) write(w *write, chunk []change, through uint64) error {
	w.wrote, w.moved = true, true
	if err := putChanges(w.tx, chunk); err != nil {
		return err
	}
	if through == 0 {
		return nil
	}
	return w.put(bucketMeta, metaLogApplied, numberKey(through))
}

// putChanges writes changes to the file.
func putChanges(tx *bbolt.Tx, chunk []change) error {
	for i := range chunk {
		c := &chunk[i]
		bucket := tx.Bucket([]byte(logged[c.bucket]))
		bucket.FillPercent = moveFill
		var err error
		if c.deleted {
			err = bucket.Delete(c.key)
		} else {
			err = bucket.Put(c.key, c.value)
		}
		if err != nil {
			return putError(logged[c.bucket], err)
		}
	}
	return nil
}

// forget removes settlements that are older than quota.SettleMemory, a chunk in each transaction. They are removed here and not by
// Settle, so that it costs no record in the log.
func (m *mover) forget(ctx context.Context) error {
	for {
		n, err := mutate(ctx, m.file, func(w *write) (int, error) { return forgetSettled(w, m.now(), m.chunk) })
		if err != nil || n < m.chunk {
			return err
		}
	}
}

// forgetSettled removes up to so many old settlements. One that was settled again has another instant, here or in the log.
func forgetSettled(w *write, now time.Time, limit int) (int, error) {
	index, records := w.tx.Bucket([]byte(bucketSettledAt)), w.tx.Bucket([]byte(bucketSettled))
	old := oldSettled(index, now, limit)
	for _, key := range old {
		w.wrote, w.moved = true, true
		if err := index.Delete(key); err != nil {
			return 0, putError(bucketSettledAt, err)
		}
		id := key[8:]
		s, err := decode[settled](records.Get(id))
		if err != nil || s == nil || !bytes.Equal(settledAt(s.At, string(id)), key) {
			continue // damage is for doctor to find
		}
		if err := records.Delete(id); err != nil {
			return 0, putError(bucketSettled, err)
		}
	}
	return len(old), nil
}

// oldSettled returns the first keys in bucketSettledAt of settlements that can be forgotten.
func oldSettled(index *bbolt.Bucket, now time.Time, limit int) (old [][]byte) {
	c := index.Cursor()
	for k, _ := c.First(); k != nil && len(old) < limit; k, _ = c.Next() {
		if len(k) < 8 {
			continue // damage is for doctor to find
		}
		if now.Sub(time.Unix(0, int64(binary.BigEndian.Uint64(k)))) <= quota.SettleMemory {
			break
		}
		old = append(old, bytes.Clone(k))
	}
	return old
}
