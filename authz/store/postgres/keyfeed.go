package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

const (
	// feedPage is how many changes are read at a time.
	feedPage = 5000
	// feedEvery is how often the feed is read at the least, so that its age shows that nothing has changed.
	feedEvery = 5 * time.Second
	// feedRetry is the pause after a failure, on average: one attempt, with one connection, finds out that the database is back.
	feedRetry = time.Second
	// loadWait is how long reading the digests of all keys may take. A million take two seconds.
	loadWait = 5 * time.Minute
	// firstWait is how long the first call of DB.Keys waits for them.
	firstWait = time.Minute
)

// keyFeed keeps what memory holds of the keys up to date: it loads it, from the local copy or from the database, and then applies the
// changes in the order of their commits. One goroutine runs it.
type keyFeed struct {
	keys   *Keys
	epoch  time.Time
	read   atomic.Int64 // when the feed was last read to its end, in nanoseconds since epoch
	reader feedReader
	copy   *keyCopy // nil: none is kept
	stop   context.CancelFunc
	wg     sync.WaitGroup

	// Owned by run.
	after        int64  // the revision up to which changes were applied
	installation string // that was loaded
	failing      bool
}

// never is before every time.
const never = -1 << 62

// start loads the keys and runs the feed.
func (f *keyFeed) start(s *Keys) {
	f.keys, f.epoch, f.reader.db = s, time.Now(), s.db
	f.read.Store(never)
	if dir := s.db.o.CopyDir; dir != "" {
		f.copy = newKeyCopy(s.db, dir)
		s.reader.copy = f.copy
		f.loadCopy()
	}
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	first := make(chan struct{})
	f.wg.Go(func() { f.run(ctx, first) })
	select {
	case <-first:
	case <-time.After(firstWait):
	}
}

func (f *keyFeed) close() {
	f.stop()
	f.wg.Wait()
}

// age is how long ago the feed was last read to its end.
func (f *keyFeed) age() (time.Duration, bool) {
	read := f.read.Load()
	if read == never {
		return 0, false
	}
	return time.Since(f.epoch) - time.Duration(read), true
}

// run reads the feed when it may have moved on, and at intervals. It closes first after the first attempt.
func (f *keyFeed) run(ctx context.Context, first chan<- struct{}) {
	wake, unsubscribe := f.keys.db.subscribe()
	defer unsubscribe()
	if f.copy != nil {
		defer f.copy.close(f)
	}
	f.attempt(ctx)
	close(first)
	for {
		timer := time.NewTimer(f.pause())
		awake := wake
		if f.failing {
			awake = nil // not all nodes at once
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-awake:
		case <-timer.C:
		}
		timer.Stop()
		f.attempt(ctx)
	}
}

func (f *keyFeed) pause() time.Duration {
	every := max(min(feedEvery, f.keys.db.o.MaxStaleness/5), time.Millisecond)
	if f.failing {
		every = min(feedRetry, every)
		return every/2 + rand.N(every)
	}
	return every
}

// attempt reads the feed to its end once, and keeps the local copy up to date.
func (f *keyFeed) attempt(ctx context.Context) {
	err := f.sync(ctx)
	if ctx.Err() != nil {
		return
	}
	switch log := f.keys.db.o.Logger; {
	case err != nil && !f.failing:
		log.Warn("the feed of keys cannot be read: keys in use stay known for a while", "error", err, "max_staleness", f.keys.db.o.MaxStaleness)
	case err == nil && f.failing:
		log.Info("the feed of keys is read again")
	}
	f.failing = err != nil
	if err == nil && f.copy != nil {
		f.copy.update(f)
	}
}

// sync reads the feed to its end.
func (f *keyFeed) sync(ctx context.Context) error {
	if f.keys.held.Load() == nil {
		if err := f.load(ctx); err != nil {
			return err
		}
	}
	for {
		began := time.Since(f.epoch)
		n, err := f.page(ctx)
		if errors.Is(err, errWentBack) || err == nil && f.keys.db.Installation() != f.installation {
			f.keys.db.o.Logger.Warn("the keys are read again: the database has lost changes, or this node was away for long")
			if err = f.load(ctx); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if n < feedPage {
			f.read.Store(int64(began))
			return nil
		}
	}
}

const selectChanges = `SELECT revision, is_key, name, record FROM (
		(SELECT revision, true AS is_key, digest AS name, record FROM tollkeeper.keys WHERE revision > $1 ORDER BY revision LIMIT $2)
		UNION ALL
		(SELECT revision, false, id, record FROM tollkeeper.accounts WHERE revision > $1 ORDER BY revision LIMIT $2)
	) AS changes ORDER BY revision LIMIT $2`

// page reads and applies the next changes, and returns how many there were.
func (f *keyFeed) page(ctx context.Context) (int, error) {
	var changes []keyChange
	const checked = 1 // the reader compares its place
	err := f.reader.read(ctx, checked, selectChanges, []any{f.after, feedPage}, func(rows pgx.Rows) (err error) {
		changes, err = pgx.CollectRows(rows, scanChange)
		return err
	})
	if err != nil {
		return 0, err
	}
	if len(changes) == 0 {
		return 0, nil
	}
	f.keys.held.Load().apply(changes, false)
	f.after = changes[len(changes)-1].revision
	f.copy.touch(changes)
	return len(changes), nil
}

func scanChange(row pgx.CollectableRow) (c keyChange, err error) {
	if err = row.Scan(&c.revision, &c.isKey, &c.name, &c.sealed); err == nil && c.isKey {
		_, err = digestOf(c.name)
	}
	return c, err
}

const selectDigests = `SELECT digest FROM tollkeeper.keys`

// load reads the digests of all keys. Changes of this node that are committed meanwhile are applied too; those of others come with the
// feed.
func (f *keyFeed) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadWait)
	defer cancel()
	s := f.keys
	next := newHeldKeys(s.reader)
	if old := s.held.Load(); old != nil {
		old.replaceWith(next)
		defer old.replaceWith(nil)
	}
	var at place
	err := s.db.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		// Before the digests: those that are added later come with the feed.
		if err := conn.QueryRow(ctx, selectPlace).Scan(&at.Revision, &at.Token); err != nil {
			return err
		}
		rows, err := conn.Query(ctx, selectDigests)
		if err != nil {
			return err
		}
		var digest pgtype.DriverBytes // not copied
		_, err = pgx.ForEachRow(rows, []any{&digest}, func() error {
			d, err := digestOf(digest)
			next.cache.AddDigest(d)
			return err
		})
		return err
	})
	if err != nil {
		return err
	}
	f.after, f.installation = at.Revision, s.db.Installation()
	f.reader.start(at)
	s.held.Store(next)
	f.copy.restart()
	return nil
}
