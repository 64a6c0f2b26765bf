package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// change is one transaction on the records of some holders. It takes two round trips: the first message locks and reads, the second
// writes and commits. All verbs may be repeated, so the transaction is repeated even if the answer to its commit is lost.
//
// A verb that changes nothing, because it took place before, writes its record all the same: that earlier commit may not have reached a
// standby (its wait was broken off), and only a transaction that writes waits for those before it.
type change struct {
	s    *Ledger
	asks []*ask
	// wait has it wait for records that others have locked, and fail if they come into being meanwhile. Otherwise it leaves these out.
	wait    bool
	journal string // the id to look up, "" for none
	query   string // reads the state

	// These are of one attempt.
	state   state
	at      quota.Instant
	lost    bool // an answer says that the ledger has lost commits
	holders []quota.HolderID
	records map[quota.HolderID]*kept
	settled map[string]settled
	used    *entry // what the id was used for
	settles []string
	enters  *entry
}

// kept is the record of one holder.
type kept struct {
	record  *quota.Record
	damage  error
	old     bool // it has a row
	away    bool // somebody else has locked it
	changed bool
}

// errRoll says that the roll has to be brought up to date first. Nothing has changed.
var errRoll = errors.New("the roll has to be changed")

// run carries out the verbs of all asks, except those whose records are away.
func (c *change) run(ctx context.Context) (err error) {
	if c.query, err = c.s.stateQuery(ctx); err != nil {
		return err
	}
	for n := 1; ; n++ {
		err := c.s.db.repeat(ctx, c.attempt)
		if !errors.Is(err, errRoll) || n == maxAttempts {
			return err
		}
		if err := c.s.changeRoll(ctx, func(t *state) {
			if c.lost {
				t.roll.Lost(t.time)
			}
		}); err != nil {
			return err
		}
	}
}

// attempt runs the transaction once.
func (c *change) attempt(ctx context.Context, conn *pgxpool.Conn) error {
	reached := c.s.reached()
	err := c.read(ctx, conn)
	if err == nil && c.state.doubtful(reached) {
		err = errRoll
	}
	if err == nil {
		err = c.apply()
	}
	if err != nil || !c.writes() {
		undo(ctx, conn)
		return repeatable(conn, err)
	}
	if err := c.write(ctx, conn); err != nil {
		undo(ctx, conn)
		return repeatable(conn, err)
	}
	c.s.finished(&c.state)
	return nil
}

// repeatable is lost for a transaction of which it does not matter whether its commit was sent, and which may have met another one that
// made the same rows.
func repeatable(conn *pgxpool.Conn, err error) error {
	if sqlState(err) == stateUniqueConflict {
		return fmt.Errorf("%w: %w", errRepeat, err)
	}
	return lost(conn, err)
}

// undo ends a transaction that failed, or that has nothing to write.
func undo(ctx context.Context, conn *pgxpool.Conn) {
	if conn.Conn().IsClosed() || conn.Conn().PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = conn.Exec(ctx, "rollback") // the pool closes a connection that is still in a transaction
}

// beginIn queues the beginning of a transaction. A session's own settings would not survive PgBouncer, and a node that
// stops in a transaction must not hold its locks.
func (db *DB) beginIn(b *pgx.Batch) {
	timeout := strconv.FormatInt(db.o.StatementTimeout.Milliseconds(), 10)
	b.Queue("begin isolation level read committed")
	b.Queue(`SELECT set_config('statement_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $1, true),
		set_config('lock_timeout', $2, true)`, timeout, strconv.FormatInt(lockWait.Milliseconds(), 10))
}

// lockWait is for how long a verb waits for a record that others change. So long nobody has it who lives.
const lockWait = 2 * time.Second

// lockHolders locks the records of the holders that are there. The third column says of the others whether they have a row. LATERAL
// leaves only one plan, a look into the index for each holder: a join is planned by what the table was like once, and would read
// all of it.
const lockHolders = `SELECT q.i, l.record, CASE WHEN l.record IS NULL
		THEN coalesce((SELECT true FROM tollkeeper.holders h WHERE h.per = q.per AND h.holder = q.holder), false) ELSE false END
	FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS q (per, holder, i)
	LEFT JOIN LATERAL (SELECT h.record FROM tollkeeper.holders h WHERE h.per = q.per AND h.holder = q.holder FOR UPDATE %s) l ON true`

var (
	lockAndWait = fmt.Sprintf(lockHolders, "")
	lockOrSkip  = fmt.Sprintf(lockHolders, "SKIP LOCKED")
)

// read locks the records, and reads them, the ids and the state. Each statement sees what was committed before it began, so that
// the ids and the state are as of a moment at which the records were already locked.
func (c *change) read(ctx context.Context, conn *pgxpool.Conn) error {
	c.lost, c.records, c.settled, c.used, c.settles, c.enters = false, make(map[quota.HolderID]*kept), nil, nil, nil, nil
	c.holders = c.holders[:0]
	ids := make([][]byte, 0, len(c.asks))
	for _, a := range c.asks {
		if c.records[a.holder] == nil {
			c.records[a.holder] = &kept{record: &quota.Record{}}
			c.holders = append(c.holders, a.holder)
		}
		if a.id != "" {
			ids = append(ids, []byte(a.id))
		}
	}
	slices.SortFunc(c.holders, func(a, b quota.HolderID) int {
		return cmp.Or(cmp.Compare(a.Per, b.Per), cmp.Compare(a.Holder, b.Holder))
	})
	b := &pgx.Batch{}
	c.s.db.beginIn(b)
	pers, holders := keys(c.holders)
	lock := lockOrSkip
	if c.wait {
		lock = lockAndWait
	}
	b.Queue(lock, pers, holders).Query(c.scanRecords)
	if len(ids) > 0 {
		b.Queue(`SELECT id, at, answer FROM tollkeeper.settled WHERE id = ANY($1)`, ids).Query(c.scanSettled)
	}
	if c.journal != "" {
		b.Queue(`SELECT verb, bucket, units FROM tollkeeper.journal WHERE id = $1`, []byte(c.journal)).Query(c.scanEntry)
	}
	b.Queue(c.query).QueryRow(c.s.scanState(&c.state))
	return conn.SendBatch(ctx, b).Close()
}

// keys are holders as columns of a table.
func keys(of []quota.HolderID) (pers []string, holders [][]byte) {
	pers, holders = make([]string, len(of)), make([][]byte, len(of))
	for i, h := range of {
		pers[i], holders[i] = string(h.Per), []byte(h.Holder)
	}
	return pers, holders
}

func (c *change) scanRecords(rows pgx.Rows) error {
	for rows.Next() {
		var (
			i    int
			text []byte
			away bool
		)
		if err := rows.Scan(&i, &text, &away); err != nil {
			return err
		}
		k := c.records[c.holders[i-1]]
		if k.away, k.old = away, text != nil; k.old {
			k.record, k.damage = decodeRecord(c.holders[i-1], text)
		}
	}
	return rows.Err()
}

// settled remembers a settlement, so that the same one is answered again and not charged again.
type settled struct {
	at     time.Time
	answer quota.Settlement
}

func (c *change) scanSettled(rows pgx.Rows) error {
	c.settled = make(map[string]settled)
	for rows.Next() {
		var (
			id []byte
			s  settled
		)
		if err := rows.Scan(&id, &s.at, &s.answer); err != nil {
			return err
		}
		c.settled[string(id)] = s
	}
	return rows.Err()
}

// entry says for which credit, reset or release an id was used.
type entry struct {
	verb   string
	bucket quota.Bucket
	units  int64
	note   string
}

func (c *change) scanEntry(rows pgx.Rows) error {
	for rows.Next() {
		var (
			e   entry
			key []byte
			err error
		)
		if err := rows.Scan(&e.verb, &key, &e.units); err != nil {
			return err
		}
		if e.bucket, err = quota.ParseKey(string(key)); err != nil {
			return err
		}
		c.used = &e
	}
	return rows.Err()
}

// apply carries out the verbs in memory.
func (c *change) apply() error {
	t := &c.state
	c.at = t.instant()
	for _, a := range c.asks {
		k := c.records[a.holder]
		a.again = k.away || a.id != "" && !k.old && !c.wait // an id and a new row that another transaction has too would undo all others
		switch {
		case a.again && c.wait:
			return errRepeat // the record was deleted while we waited for it
		case !a.again:
			a.apply(c, k)
		}
	}
	if c.lost && (t.roll.Safe || !c.at.Withhold) { // others must know before any of this is seen
		return errRoll
	}
	return nil
}

// writes reports whether there is anything to write.
func (c *change) writes() bool {
	for _, k := range c.records {
		if k.changed {
			return true
		}
	}
	return false
}

const (
	// All transactions insert in the order of the keys.
	insertHolders = `INSERT INTO tollkeeper.holders (per, holder, record) SELECT per, holder, record
		FROM unnest($1::text[], $2::bytea[], $3::bytea[]) WITH ORDINALITY AS q (per, holder, record, i) ORDER BY i`
	updateHolders = insertHolders + ` ON CONFLICT (per, holder) DO UPDATE SET record = excluded.record` // see lockHolders
	insertNew     = insertHolders + ` ON CONFLICT DO NOTHING RETURNING per, holder`
	insertSettled = `INSERT INTO tollkeeper.settled (id, at, answer) SELECT id, at, answer::jsonb
		FROM unnest($1::bytea[], $2::timestamptz[], $3::text[]) WITH ORDINALITY AS q (id, at, answer, i) ORDER BY i`
	insertEntry = `INSERT INTO tollkeeper.journal (id, verb, bucket, units, note, at) VALUES ($1, $2, $3, $4, $5, $6)`
)

// write writes the records and the ids, and commits.
func (c *change) write(ctx context.Context, conn *pgxpool.Conn) error {
	old, fresh, err := c.changed()
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	if len(old.holders) > 0 {
		b.Queue(updateHolders, old.pers, old.keys, old.records).Exec(old.all)
	}
	if len(fresh.holders) > 0 && c.wait {
		b.Queue(insertHolders, fresh.pers, fresh.keys, fresh.records)
	} else if len(fresh.holders) > 0 {
		b.Queue(insertNew, fresh.pers, fresh.keys, fresh.records).Query(func(rows pgx.Rows) error {
			return c.scanInserted(fresh.holders, rows)
		})
	}
	if err := c.writeIDs(b); err != nil {
		return err
	}
	queueCommit(b)
	return conn.SendBatch(ctx, b).Close()
}

// queueCommit queues the end of a transaction.
func queueCommit(b *pgx.Batch) {
	b.Queue("commit").Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != "COMMIT" {
			return pgx.ErrTxCommitRollback
		}
		return nil
	})
}

// written is rows of tollkeeper.holders.
type written struct {
	holders []quota.HolderID
	pers    []string
	keys    [][]byte
	records [][]byte
}

// all returns an error unless a statement has written all of the rows.
func (w *written) all(tag pgconn.CommandTag) error {
	if n := tag.RowsAffected(); n != int64(len(w.holders)) {
		return fmt.Errorf("%d of %d records were written", n, len(w.holders))
	}
	return nil
}

// changed is the records to write, in the order of their keys: those that have a row, and the others.
func (c *change) changed() (old, fresh written, err error) {
	var text []byte
	for _, h := range c.holders {
		k := c.records[h]
		if !k.changed {
			continue
		}
		w := &fresh
		if k.old {
			w = &old
		}
		begin := len(text)
		if text, err = k.record.AppendBinary(text); err != nil {
			return old, fresh, err
		}
		w.holders, w.records = append(w.holders, h), append(w.records, text[begin:len(text):len(text)])
	}
	old.pers, old.keys = keys(old.holders)
	fresh.pers, fresh.keys = keys(fresh.holders)
	return old, fresh, nil
}

// scanInserted finds out which of the new records somebody else has made meanwhile. What was asked of these did not take place.
func (c *change) scanInserted(fresh []quota.HolderID, rows pgx.Rows) error {
	for _, h := range fresh {
		c.records[h].away = true
	}
	for rows.Next() {
		var (
			per    string
			holder []byte
		)
		if err := rows.Scan(&per, &holder); err != nil {
			return err
		}
		c.records[quota.HolderID{Per: authz.Per(per), Holder: string(holder)}].away = false
	}
	for _, a := range c.asks {
		a.again = a.again || c.records[a.holder].away
	}
	return rows.Err()
}

// writeIDs queues what is to be remembered of ids.
func (c *change) writeIDs(b *pgx.Batch) error {
	if len(c.settles) > 0 {
		slices.Sort(c.settles)
		var (
			ids     [][]byte
			at      []time.Time
			answers []string
		)
		for _, id := range c.settles {
			text, err := json.Marshal(c.settled[id].answer)
			if err != nil {
				return err
			}
			ids, at, answers = append(ids, []byte(id)), append(at, c.settled[id].at), append(answers, string(text))
		}
		b.Queue(`DELETE FROM tollkeeper.settled WHERE id = ANY($1)`, ids) // what is older than SettleMemory
		b.Queue(insertSettled, ids, at, answers)
	}
	if e := c.enters; e != nil {
		b.Queue(insertEntry, []byte(c.journal), e.verb, []byte(e.bucket.Key()), e.units, []byte(e.note), c.at.Time)
	}
	return nil
}
