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
//	place.take, and in the end notifyFeed
//
// The row that it updates stays locked until the commit, so that no revision appears after a greater one. Whoever has read the feed up to a
// revision has seen every change up to it.
const (
	// takeRevisions reserves $1 revisions and returns the last.
	takeRevisions = `WITH taken AS (UPDATE tollkeeper.installation SET revision = revision + $1::bigint RETURNING revision)
		INSERT INTO tollkeeper.feed (revision, token) SELECT revision, gen_random_uuid() FROM taken RETURNING revision`
	// selectToken is the token of what takeRevisions has given this transaction.
	selectToken = `SELECT token::text FROM tollkeeper.feed WHERE revision = (SELECT revision FROM tollkeeper.installation)`
	// notifyFeed tells the other nodes. It arrives when the transaction is committed.
	notifyFeed = `SELECT pg_notify('` + feedChannel + `', '')`
	// selectPlace is the end of the feed.
	selectPlace = `SELECT revision, token::text FROM tollkeeper.feed ORDER BY revision DESC LIMIT 1`
	// selectPlaces reports whether the feed has all places of revisions $1 and tokens $2.
	selectPlaces = `SELECT count(f) = count(*) FROM unnest($1::bigint[], $2::text[]) AS p(revision, token)
		LEFT JOIN tollkeeper.feed f ON f.revision = p.revision AND f.token = p.token::uuid`
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

// take queues the statements that reserve n revisions, of which p becomes the last.
func (p *place) take(b *pgx.Batch, n int64) {
	b.Queue(takeRevisions, n).QueryRow(func(row pgx.Row) error { return row.Scan(&p.Revision) })
	b.Queue(selectToken).QueryRow(func(row pgx.Row) error { return row.Scan(&p.Token) })
}

// feedReader is one reader of the feed. Its methods may be called concurrently.
type feedReader struct {
	db *DB

	mu     sync.Mutex
	at     *place  // the end of the feed at the last read; nil before the first
	writes []place // of this node, since then
}

// places are those that the feed must still have.
func (f *feedReader) places() (all []place, at *place, writes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at != nil {
		all = append(all, *f.at)
	}
	return append(all, f.writes...), f.at, len(f.writes)
}

// read runs a query over the rows above a revision, and passes them to scan. It returns errWentBack, once, if what was read before
// need not be what is there now.
func (f *feedReader) read(ctx context.Context, after int64, sql string, args []any, scan func(pgx.Rows) error) error {
	places, at, writes := f.places()
	if after == 0 {
		places = nil
	}
	var end place
	var installation string
	sound := true
	err := f.db.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		b := &pgx.Batch{}
		b.Queue(sql, args...).Query(scan)
		// After the rows: no row of a later revision than the place was read, so that whoever keeps the place keeps the rows.
		b.Queue(selectPlace).QueryRow(func(row pgx.Row) error {
			return row.Scan(&end.Revision, &end.Token)
		})
		b.Queue(`SELECT id::text FROM tollkeeper.installation`).QueryRow(func(row pgx.Row) error { return row.Scan(&installation) })
		if len(places) > 0 {
			b.Queue(selectPlaces, revisionsOf(places), tokensOf(places)).QueryRow(func(row pgx.Row) error { return row.Scan(&sound) })
		}
		return conn.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return err
	}
	if err := f.db.stillServes(installation); err != nil {
		return wrap(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at != at { // somebody has begun anew, or read, meanwhile
		return nil
	}
	f.writes = f.writes[writes:]
	if !sound {
		f.at = nil
		return errWentBack
	}
	f.at = &end
	return nil
}

func revisionsOf(places []place) (out []int64) {
	for _, p := range places {
		out = append(out, p.Revision)
	}
	return out
}

func tokensOf(places []place) (out []string) {
	for _, p := range places {
		out = append(out, p.Token)
	}
	return out
}

// writeWait is for a transaction that several callers wait for.
const writeWait = 5 * time.Second

// wrote notes a write of this node, which is applied before it comes with the feed. If the database loses it before that, a read
// notices.
func (f *feedReader) wrote(at place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at != nil { // else the first read will see whether it is there
		f.writes = append(f.writes, at)
	}
}

// start has the reader go on from where all these are in the feed.
func (f *feedReader) start(places ...place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.writes = &places[0], places[1:]
}
