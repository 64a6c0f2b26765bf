package postgres

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// The feed is the changes of accounts, keys and revocations in the order of their commits. A transaction that changes any takes its
// revisions after its checks, just before it writes, with
//
//	takeRevisions, and in the end notifyFeed
//
// The row that it updates stays locked until the commit, so that no revision appears after a greater one. Whoever has read the feed up to a
// revision has seen every change up to it.
const (
	// takeRevisions reserves $1 revisions and returns the last.
	takeRevisions = `WITH taken AS (UPDATE tollkeeper.installation SET revision = revision + $1::bigint RETURNING revision)
		INSERT INTO tollkeeper.feed (revision, token) SELECT revision, gen_random_uuid() FROM taken RETURNING revision`
	// notifyFeed tells the other nodes. It arrives when the transaction is committed.
	notifyFeed = `SELECT pg_notify('` + feedChannel + `', '')`
	// selectPlace is the end of the feed.
	selectPlace = `SELECT revision, token::text FROM tollkeeper.feed ORDER BY revision DESC LIMIT 1`
	// forgetFeed keeps the table small. The last row stays: readers that are up to date have their place there.
	forgetFeed = `DELETE FROM tollkeeper.feed WHERE at < now() - interval '1 day' AND revision < (SELECT revision FROM tollkeeper.installation)`
)

// errWentBack says that the database has lost changes that were committed, or that the reader was away for longer than forgetFeed
// allows. Its next read begins at 0.
var errWentBack = errors.New("the feed went back: changes were lost")

// place is how far a reader of the feed has come. After a failover that lost commits, revisions are given out a second time, for other
// changes; the token tells.
type place struct {
	Revision int64  `json:"revision"`
	Token    string `json:"token"`
}

// feedReader is one reader of the feed. Its methods may be called concurrently.
type feedReader struct {
	db *DB

	mu sync.Mutex
	at *place // the end of the feed at the last read; nil before the first
}

// read runs a query over the rows above a revision, and passes them to scan. It returns errWentBack, once, if what was read before
// need not be what is there now.
func (f *feedReader) read(ctx context.Context, after int64, sql string, args []any, scan func(pgx.Rows) error) error {
	var before place
	f.mu.Lock()
	known := f.at != nil && after > 0
	if known {
		before = *f.at
	}
	f.mu.Unlock()
	var end place
	sound := !known
	err := f.db.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		b := &pgx.Batch{}
		b.Queue(sql, args...).Query(scan)
		// After the rows: no row of a later revision than the place was read, so that whoever keeps the place keeps the rows.
		b.Queue(selectPlace).QueryRow(func(row pgx.Row) error {
			return row.Scan(&end.Revision, &end.Token)
		})
		if known {
			b.Queue(`SELECT EXISTS (SELECT FROM tollkeeper.feed WHERE revision = $1 AND token = $2::text::uuid)`,
				before.Revision, before.Token).QueryRow(func(row pgx.Row) error { return row.Scan(&sound) })
		}
		return conn.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !sound {
		f.at = nil
		return errWentBack
	}
	f.at = &end
	return nil
}

// writeWait is for a transaction that several callers wait for.
const writeWait = 5 * time.Second

// start has the reader go on from a place that was read before.
func (f *feedReader) start(at place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = &at
}

// place is the end of the feed at the last read.
func (f *feedReader) place() place {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == nil {
		return place{}
	}
	return *f.at
}
