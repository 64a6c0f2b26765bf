package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keycache"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

const (
	// keyQueries is how many queries for keys and accounts run at a time. Who comes when all run waits for the next, with all others
	// who came meanwhile.
	keyQueries = 4
	// keysPerQuery is how many keys and accounts a query asks for, and queuedQueries how many queries wait at the most.
	keysPerQuery  = 256
	queuedQueries = 64
	// keyQueryWait is how long a query may take. Checks do not wait for so long.
	keyQueryWait = 2 * time.Second
)

// keyReader reads keys and accounts that are not held in memory. It is a keycache.Source.
type keyReader struct {
	db   *DB
	copy *keyCopy // notes what was read
	wait time.Duration

	mu      sync.Mutex
	queue   []*keyBatch // the last may be joined; none of them has been sent, so that no answer is older than the question
	running int
	closed  bool
	wg      sync.WaitGroup
}

// keyBatch is what one query asks for, and its answers.
type keyBatch struct {
	done     chan struct{}
	digests  map[apikey.Digest]struct{}
	ids      map[string]struct{}
	keys     map[apikey.Digest]keyRow
	accounts map[string][]byte // sealed
	err      error
}

// keyRow is a key with its account.
type keyRow struct {
	sealed, account, sealedAccount []byte // sealedAccount is nil if there is none
}

func newKeyReader(db *DB) *keyReader { return &keyReader{db: db, wait: keyQueryWait} }

// ReadKey is keycache.Source.ReadKey.
func (r *keyReader) ReadKey(ctx context.Context, d apikey.Digest, k *apikey.Key, into keycache.Reading) error {
	b, err := r.ask(ctx, func(b *keyBatch) { b.digests[d] = struct{}{} })
	if err != nil {
		return err
	}
	row, ok := b.keys[d]
	if !ok {
		return keycache.NoKey(d)
	}
	record, err := keyrecord.Open(d[:], row.sealed)
	if err != nil {
		return err
	}
	if err := keyrecord.Key(k, d, string(record)); err != nil {
		return err
	}
	into.Key(d, record)
	r.copy.read(true, d[:])
	if id := string(row.account); id == k.Account && !into.HasAccount(id) {
		if account, err := openedAccount(id, row.sealedAccount); err == nil { // else the look-up of the account will say so
			into.Account(id, account)
			r.copy.read(false, row.account)
		}
	}
	return nil
}

// ReadAccount is keycache.Source.ReadAccount.
func (r *keyReader) ReadAccount(ctx context.Context, id string, into keycache.Reading) (string, error) {
	b, err := r.ask(ctx, func(b *keyBatch) { b.ids[id] = struct{}{} })
	if err != nil {
		return "", err
	}
	record, err := openedAccount(id, b.accounts[id])
	if err != nil {
		return "", err
	}
	into.Account(id, record)
	r.copy.read(false, []byte(id))
	return string(record), nil
}

// openedAccount opens the record of an account, which is nil if there is none.
func openedAccount(id string, sealed []byte) ([]byte, error) {
	if sealed == nil {
		return nil, nil
	}
	return keyrecord.Open([]byte(id), sealed)
}

// ask adds a question to the next query and waits for its answers.
func (r *keyReader) ask(ctx context.Context, add func(*keyBatch)) (*keyBatch, error) {
	b := r.join(add)
	if b == nil {
		return nil, authz.Errorf(authz.KindUnavailable, "too many keys wait to be read, or the store is closed")
	}
	select {
	case <-b.done:
		return b, b.err
	case <-ctx.Done():
		return nil, authz.Errorf(authz.KindUnavailable, "not read: %w", ctx.Err())
	}
}

// join adds a question to the last batch. It returns nil if too many wait, or the store is closed.
func (r *keyReader) join(add func(*keyBatch)) *keyBatch {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.queue)
	if r.closed {
		return nil
	}
	if n == 0 || len(r.queue[n-1].digests)+len(r.queue[n-1].ids) >= keysPerQuery {
		if n == queuedQueries {
			return nil
		}
		r.queue = append(r.queue, &keyBatch{
			done: make(chan struct{}), digests: make(map[apikey.Digest]struct{}), ids: make(map[string]struct{}),
		})
		n++
	}
	b := r.queue[n-1]
	add(b)
	if r.running < keyQueries {
		r.running++
		r.wg.Go(r.work)
	}
	return b
}

// work sends queries until none waits.
func (r *keyReader) work() {
	for b := r.take(); b != nil; b = r.take() {
		b.err = r.query(b)
		close(b.done)
	}
}

// take removes the first batch from the queue. Without one it ends a worker.
func (r *keyReader) take() *keyBatch {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		r.running--
		return nil
	}
	b := r.queue[0]
	r.queue = r.queue[1:]
	return b
}

// close refuses questions from now on, and waits for the queries that run.
func (r *keyReader) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.wg.Wait()
}

const (
	selectKeys = `SELECT k.digest, k.record, k.account, a.record FROM tollkeeper.keys k
		LEFT JOIN tollkeeper.accounts a ON a.id = k.account WHERE k.digest = ANY($1)`
	selectAccounts = `SELECT id, record FROM tollkeeper.accounts WHERE id = ANY($1)`
)

func (r *keyReader) query(b *keyBatch) error {
	ctx, cancel := context.WithTimeout(context.Background(), r.wait)
	defer cancel()
	var digests, ids [][]byte
	for d := range b.digests {
		digests = append(digests, d[:])
	}
	for id := range b.ids {
		ids = append(ids, []byte(id))
	}
	return r.db.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		batch := &pgx.Batch{}
		if digests != nil {
			batch.Queue(selectKeys, digests).Query(b.scanKeys)
		}
		if ids != nil {
			batch.Queue(selectAccounts, ids).Query(b.scanAccounts)
		}
		return conn.SendBatch(ctx, batch).Close()
	})
}

func (b *keyBatch) scanKeys(rows pgx.Rows) error {
	b.keys = make(map[apikey.Digest]keyRow, len(b.digests))
	for rows.Next() {
		var digest []byte
		var row keyRow
		if err := rows.Scan(&digest, &row.sealed, &row.account, &row.sealedAccount); err != nil {
			return err
		}
		d, err := digestOf(digest)
		if err != nil {
			return err
		}
		b.keys[d] = row
	}
	return rows.Err()
}

func (b *keyBatch) scanAccounts(rows pgx.Rows) error {
	b.accounts = make(map[string][]byte, len(b.ids))
	for rows.Next() {
		var id, sealed []byte
		if err := rows.Scan(&id, &sealed); err != nil {
			return err
		}
		b.accounts[string(id)] = sealed
	}
	return rows.Err()
}
