package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/localcopy"
)

// revocationReader is a revocation.Reader.
type revocationReader struct {
	db   *DB
	feed feedReader
	copy revocationCopy
}

var (
	_ revocation.Reader    = (*revocationReader)(nil)
	_ revocation.LocalCopy = (*revocationReader)(nil)
)

// Reader returns a reader for one revocation.Set. If Options.CopyDir is set, it keeps a local copy there; then there is one reader.
func (s *Revocations) Reader() revocation.Reader {
	r := &revocationReader{db: s.db, feed: feedReader{db: s.db}, copy: revocationCopy{db: s.db, mayGrow: copyMayGrow}}
	s.db.whenClosed(r.copy.close)
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	s.db.readers = append(s.db.readers, &r.feed)
	return r
}

// Since is revocation.Reader.Since.
func (r *revocationReader) Since(ctx context.Context, after uint64, limit int) ([]revocation.Record, error) {
	var out []revocation.Record
	began := time.Now()
	reading, cancel := context.WithTimeout(ctx, r.db.o.StatementTimeout)
	defer cancel()
	err := r.feed.read(reading, int64(after), selectRevocations, []any{int64(after), limit}, func(rows pgx.Rows) (err error) {
		out, err = readRevocations(rows)
		return err
	})
	if errors.Is(err, errWentBack) {
		r.db.o.Logger.Warn("the database has lost changes that were committed, or this node was away for long: all revocations are read again")
		return nil, revocation.ErrWentBack
	}
	if err == nil {
		r.copy.saw(ctx, after, out, len(out) < limit, began)
	}
	return out, err
}

// ReadCopy is revocation.LocalCopy.ReadCopy.
func (r *revocationReader) ReadCopy(each func(revocation.Record)) (time.Time, error) {
	return r.copy.read(each)
}

// revocationCopy keeps what a reader of the revocations has read in a file, for a start while the database is away. It writes
// what Since returns to the reader that began at 0, page by page, and marks the file each time that reader has come to the end.
type revocationCopy struct {
	db      *DB
	mayGrow int64

	mu        sync.Mutex
	w         *localcopy.Writer // nil: none is kept
	after     uint64            // revision of the last record in it
	published int64             // its size when it was new, 0 if it has no mark yet
	failed    time.Time         // when it was given up
}

const (
	revocationsFile = "revocations.copy"
	kindRevocation  = 1
	// A copy is written anew when it is so much larger than it was: it also has what was merged and forgotten since, and the marks,
	// 2 MB a day.
	copyGrows, copyMayGrow = 2, 64 << 20
	copyPage               = 10_000
)

// head says of which installation the file is a copy.
func (c *revocationCopy) head() []byte { return []byte("revocations 1 " + c.db.knownInstallation()) }

func (c *revocationCopy) path() string { return filepath.Join(c.db.o.CopyDir, revocationsFile) }

// saw takes over what the reader got that asked above a revision. end says that there was no more at that time.
func (c *revocationCopy) saw(ctx context.Context, after uint64, page []revocation.Record, end bool, at time.Time) {
	if c.db.o.CopyDir == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	none := c.w == nil && time.Since(c.failed) > copyRetry
	grown := c.w != nil && c.published > 0 && c.w.Size() > copyGrows*c.published+c.mayGrow
	switch {
	case after == 0 && (none || c.after > 0):
		err = c.beginLocked()
	case end && (none || grown):
		err = c.renewLocked(ctx)
	}
	if c.w != nil && err == nil {
		if err = c.addLocked(page); err == nil && end {
			err = c.markLocked(at)
		}
	}
	if err != nil { // what is on the disk grows old, and is not used then
		c.db.o.Logger.Warn("no local copy of the revocations is kept", "error", err)
		c.closeLocked()
		c.failed = time.Now()
	}
}

// beginLocked begins a new file. The one before keeps its name until this one is complete.
func (c *revocationCopy) beginLocked() (err error) {
	c.closeLocked()
	c.after, c.published = 0, 0
	c.w, err = localcopy.Create(c.path(), c.head())
	return err
}

func (c *revocationCopy) addLocked(page []revocation.Record) error {
	for i := range page {
		body, err := json.Marshal(&page[i])
		if err != nil {
			return err
		}
		if err := c.w.Add(kindRevocation, body); err != nil {
			return err
		}
		c.after = page[i].Revision
	}
	return nil
}

func (c *revocationCopy) markLocked(at time.Time) error {
	if err := c.w.Mark(at, nil); err != nil {
		return err
	}
	if c.published == 0 {
		c.published = c.w.Size()
		return c.w.Publish()
	}
	return nil
}

func (c *revocationCopy) closeLocked() {
	if c.w != nil {
		_ = c.w.Close() // every mark was written
		c.w = nil
	}
}

func (c *revocationCopy) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked()
}

// renewLocked writes a new file. It reads to the end: a record that is merged meanwhile moves there.
func (c *revocationCopy) renewLocked(ctx context.Context) error {
	if err := c.beginLocked(); err != nil {
		return err
	}
	store := c.db.Revocations()
	for {
		page, err := store.Since(ctx, c.after, copyPage)
		if err != nil {
			return err
		}
		if err := c.addLocked(page); err != nil {
			return err
		}
		if len(page) < copyPage {
			return nil
		}
	}
}

// read calls each for the records of the file that is there, and returns when it was complete.
func (c *revocationCopy) read(each func(revocation.Record)) (time.Time, error) {
	if c.db.o.CopyDir == "" || c.db.knownInstallation() == "" {
		return time.Time{}, authz.Errorf(authz.KindUnavailable, "no local copy of the revocations is kept")
	}
	m, err := localcopy.Read(c.path(), c.head(), func(kind byte, body []byte) error {
		var r revocation.Record
		if err := json.Unmarshal(body, &r); err != nil || kind != kindRevocation {
			return errors.Join(localcopy.ErrUnusable, err)
		}
		each(r)
		return nil
	})
	if err != nil {
		return time.Time{}, authz.Errorf(authz.KindUnavailable, "%w", err)
	}
	return m.At, nil
}
