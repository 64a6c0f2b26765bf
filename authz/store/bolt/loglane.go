package bolt

import (
	"context"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt/wal"
)

// logLane writes to the write-ahead log. A commit is one append, which is on disk when it returns, whatever the number of
// operations. What was written is in the overlay from then on, and the mover brings it into the file.
//
// A crash before the end of the append loses the group, which was not acknowledged. A crash after it loses nothing: Open reads the
// log into the overlay.
type logLane struct {
	db      *bbolt.DB
	log     *wal.Log
	overlay *overlay
	faults  *faults
	sizes   sizes
	full    func()       // called when the overlay or the log is large
	open    func() error // notes in the file that there is a log

	// Owned by the committer.
	batch       batch
	sharedBooks bool // DB.sharedBooks
	opened      bool // the file says that there is a log
}

// sizes say when the overlay is moved.
type sizes struct {
	overlay int   // bytes of records
	log     int64 // bytes of segments
	segment int64 // see wal.Options
	chunk   int   // how many records are moved in one transaction, which a write of keys may have to wait for

	// behind is how many times more there may be when the file does not take it. Then the ledger is closed, before it fills
	// memory and disk.
	behind int
}

// usualSizes are such that most pages of the file that change take several records: with few, each would cost a page of 4 kB. A
// short group takes 512 bytes in the log, so that the log is large first if few callers come at a time. Open reads that much in a
// second.
func usualSizes() sizes {
	return sizes{overlay: 32 << 20, log: 64 << 20, segment: 4 << 20, chunk: 2000, behind: 4}
}

func (c *logLane) begin() (transaction, error) {
	if c.log.Size() > int64(c.sizes.behind)*c.sizes.log || c.overlay.size() > c.sizes.behind*c.sizes.overlay {
		c.full()
		return nil, authz.Errorf(authz.KindUnavailable, "not written: the write-ahead log is full until the data file can be written")
	}
	c.batch.begin = c.beginRead
	c.batch.reset(c.overlay.all())
	return &logTx{c, make(txRecords)}, nil
}

// beginRead starts to read the file. The layers were taken before: what leaves them from now on, is in the file.
func (c *logLane) beginRead() *bbolt.Tx {
	tx, err := c.db.Begin(false)
	if err != nil {
		panic(err)
	}
	return tx
}

// logTx is a transaction of the ledger.
type logTx struct {
	lane    *logLane
	records txRecords
}

func (t *logTx) write() *write {
	return &write{batch: &t.lane.batch, records: t.records, sharedBooks: t.lane.sharedBooks}
}

func (t *logTx) rollback() { t.lane.batch.end() }

func (t *logTx) commit() error {
	if err := t.records.flush(t.write()); err != nil {
		return err
	}
	t.lane.batch.end() // the file may have to be written before the log, which could wait for this read
	return t.lane.commit(t.lane.batch.record)
}

func (c *logLane) commit(record []byte) error {
	if len(record) == 0 {
		return nil
	}
	if err := c.ready(); err != nil {
		return c.faults.begin(faultOfLog, err)
	}
	seq, err := c.log.Append(record)
	if err != nil {
		return c.faults.begin(faultOfLog, err)
	}
	c.faults.over(faultOfLog)
	size, err := c.overlay.add(record, seq)
	if err != nil {
		return err // cannot happen: this process made the record
	}
	if size > c.sizes.overlay || c.log.Size() > c.sizes.log {
		c.full()
	}
	return nil
}

// ready makes the first segment, and then notes in the file that it may no longer be used without the log.
func (c *logLane) ready() error {
	if err := c.log.Begin(); err != nil || c.opened {
		return err
	}
	if err := c.open(); err != nil {
		return err
	}
	c.opened = true
	return nil
}

// reader is what the ledger reads: its buckets, wherever their records are.
type reader interface {
	// get returns the value of a key, nil if there is none. It may be read until the function that got the reader returns.
	get(bucket string, key []byte) []byte
}

var (
	_ reader = (*write)(nil)
	_ reader = (*snapshot)(nil)
)

// snapshot reads the buckets of the ledger, in layers of the overlay and the file.
type snapshot struct {
	tx     *bbolt.Tx
	layers []*layer
}

func (s *snapshot) get(bucket string, key []byte) []byte {
	code := codeOf(bucket)
	if code != 0 {
		if c, ok := findIn(s.layers, hashOf(code, key), code, key); ok {
			return c.found()
		}
	}
	return s.tx.Bucket([]byte(bucket)).Get(key)
}

// forEach calls a function for every record of a bucket, in no order.
func (s *snapshot) forEach(bucket string, do func(key, value []byte) error) error {
	code := codeOf(bucket)
	var added []change
	newest(s.layers, func(c *change) {
		if c.bucket == code && !c.deleted {
			added = append(added, *c)
		}
	})
	err := s.tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error {
		if code != 0 && len(s.layers) > 0 {
			if _, ok := findIn(s.layers, hashOf(code, k), code, k); ok {
				return nil
			}
		}
		return do(k, v)
	})
	for i := 0; err == nil && i < len(added); i++ {
		err = do(added[i].key, added[i].value)
	}
	return err
}

// viewLedger runs a function that reads buckets of the ledger, which sees only what is durable. Nothing is committed to the ledger
// while it runs.
func (db *DB) viewLedger(ctx context.Context, read func(reader) error) error {
	var drops uint64
	begin := func(context.Context) (*bbolt.Tx, error) {
		drops = db.overlay.drops.Load()
		return db.bolt.Begin(false)
	}
	for done := false; !done; {
		if err := viewTx(ctx, begin, func(tx *bbolt.Tx) error {
			db.overlay.mu.RLock()
			defer db.overlay.mu.RUnlock()
			if done = db.overlay.drops.Load() == drops; !done {
				return nil // the file may lack what the layers no longer have
			}
			return read(&snapshot{tx, db.overlay.layers})
		}); err != nil {
			return err
		}
	}
	return nil
}

// maxLayers is how many layers there may be before they are moved: each lookup may go through all of them.
const maxLayers = 8

// viewAll runs a function that reads the whole file as it is at one instant, with what the log has.
func (db *DB) viewAll(ctx context.Context, read func(*snapshot) error) error {
	layers := db.overlay.all()
	begin := func(ctx context.Context) (*bbolt.Tx, error) {
		for {
			takes := db.overlay.takes.Load()
			layers = db.overlay.freeze()
			tx, err := db.file.beginRead(ctx)
			if err != nil || db.overlay.takes.Load() == takes {
				return tx, err
			}
			_ = tx.Rollback() // it may have parts of later layers
		}
	}
	if len(layers) > maxLayers {
		db.mover.soon()
	}
	return viewTx(ctx, begin, func(tx *bbolt.Tx) error { return read(&snapshot{tx, layers}) })
}
