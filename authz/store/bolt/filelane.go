package bolt

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"go.etcd.io/bbolt"
	"golang.org/x/sync/semaphore"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// fileLane writes to the file. A commit is two fsyncs, and rewrites every page that leads to a change. If a commit fails, the cache
// is read from the file again before the next transaction.
type fileLane struct {
	db     *bbolt.DB
	reload func() error
	log    *slog.Logger
	faults *faults

	// commitGate is held whole while a commit runs, so that no read begins on a transaction that the operating system already
	// shows and the disk does not have yet. A read waits for it until its context ends. Records that are moved here from the
	// write-ahead log are durable before, and hold up no read.
	commitGate *semaphore.Weighted

	// Owned by the committer; broken may be read once it has ended.
	uncertain bool  // a commit failed: the file and the cache may differ
	broken    error // why bbolt cannot write again before the process restarts
}

// allReads is more than can begin at a time.
const allReads = 1 << 30

func newFileLane(db *bbolt.DB, reload func() error, log *slog.Logger, f *faults) *fileLane {
	return &fileLane{db: db, reload: reload, log: log, faults: f, commitGate: semaphore.NewWeighted(allReads)}
}

// fileTx is a transaction of the file.
type fileTx struct {
	lane   *fileLane
	tx     *bbolt.Tx
	writes []*write
}

func (t *fileTx) write() *write {
	w := &write{tx: t.tx}
	t.writes = append(t.writes, w)
	return w
}

func (t *fileTx) rollback() { t.lane.rollback(t.tx) }

func (t *fileTx) commit() error {
	if slices.ContainsFunc(t.writes, func(w *write) bool { return w.wrote && !w.moved }) {
		_ = t.lane.commitGate.Acquire(context.Background(), allReads) // without an end
		defer t.lane.commitGate.Release(allReads)
	}
	return t.lane.commit(t.tx)
}

// beginRead starts a read transaction, which sees only what is durable.
func (c *fileLane) beginRead(ctx context.Context) (*bbolt.Tx, error) {
	if !c.commitGate.TryAcquire(1) { // Acquire asks ctx for its end first, for which a check has to make a timer
		if err := c.commitGate.Acquire(ctx, 1); err != nil {
			return nil, fmt.Errorf("the disk is busy with a write: %w", err)
		}
	}
	defer c.commitGate.Release(1)
	return c.db.Begin(false)
}

func (c *fileLane) begin() (transaction, error) {
	if c.broken != nil {
		return nil, c.broken
	}
	if c.uncertain {
		if err := c.resync(); err != nil {
			return nil, err
		}
	}
	tx, err := c.beginWrite()
	if err != nil {
		return nil, err
	}
	return &fileTx{lane: c, tx: tx}, nil
}

func (c *fileLane) beginWrite() (tx *bbolt.Tx, err error) {
	defer func() {
		if p := recover(); p != nil {
			tx, err = nil, c.markBroken("beginning a transaction", p)
		}
	}()
	if tx, err = c.db.Begin(true); err != nil {
		return nil, c.writeFailed(err)
	}
	return tx, nil
}

// commit makes the transaction durable.
func (c *fileLane) commit(tx *bbolt.Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.uncertain = true
			err = c.writeFailed(fmt.Errorf("the data file is damaged: %v", p))
		}
	}()
	if err := tx.Commit(); err != nil {
		c.uncertain = true
		return c.writeFailed(err)
	}
	c.faults.over(faultOfFile)
	return nil
}

func (c *fileLane) writeFailed(err error) error { return c.faults.begin(faultOfFile, err) }

func (c *fileLane) rollback(tx *bbolt.Tx) {
	defer func() {
		if p := recover(); p != nil {
			_ = c.markBroken("rolling back", p)
		}
	}()
	_ = tx.Rollback()
}

// markBroken notes that bbolt panicked while it held its write lock: another transaction would wait for ever.
func (c *fileLane) markBroken(doing string, p any) error {
	c.log.Error("the data file is damaged, nothing can be written any more", "doing", doing, "panic", p)
	c.broken = authz.Errorf(authz.KindUnavailable, "not written: the data file is damaged: %v", p)
	return c.broken
}

// resync makes durable what the file shows, and reads the cache from it again.
func (c *fileLane) resync() error {
	if err := c.db.Sync(); err != nil {
		return c.writeFailed(err)
	}
	if err := c.reload(); err != nil {
		return c.writeFailed(err)
	}
	c.uncertain = false
	return nil
}
