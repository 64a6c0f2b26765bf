package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// Revocations is a revocation.Store. Requests are matched by a revocation.Set, which holds the records in memory.
type Revocations struct{ db *DB }

var _ revocation.Store = (*Revocations)(nil)

// Revocations returns the revocations of the database.
func (db *DB) Revocations() *Revocations { return &Revocations{db: db} }

// Follow returns a channel on which something arrives when there may be new records. The caller reads them with Since. stop ends it.
func (s *Revocations) Follow() (wake <-chan struct{}, stop func()) { return s.db.subscribe() }

// addition is an Add that waits for its transaction.
type addition struct {
	record revocation.Record
	stored revocation.Record // the answer
}

type matcher struct {
	kind          revocation.Kind
	issuer, value string
}

func matcherOf(r *revocation.Record) matcher { return matcher{r.Kind, r.Issuer, r.Value} }

// maxName is how many bytes an issuer or a value may have: an index entry holds two of them.
const maxName = 1024

// Add is revocation.Store.Add. Those that are made at the same time share a transaction.
func (s *Revocations) Add(ctx context.Context, r revocation.Record) (revocation.Record, error) {
	if len(r.Issuer) > maxName || len(r.Value) > maxName {
		return revocation.Record{}, authz.Errorf(authz.KindInvalid, "the issuer or the id is longer than %d bytes", maxName)
	}
	if _, err := json.Marshal(r); err != nil { // would fail all that share the transaction
		return revocation.Record{}, authz.Errorf(authz.KindInvalid, "the revocation cannot be stored: %w", err)
	}
	a := &addition{record: r}
	if err := s.db.additions.do(ctx, a); err != nil {
		return revocation.Record{}, err
	}
	return a.stored, nil
}

// errUnchanged ends a transaction that has nothing to write.
var errUnchanged = errors.New("nothing changes")

// addAll carries out additions in one transaction.
func (db *DB) addAll(adds []*addition) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeWait)
	defer cancel()
	var at place
	err := db.tx(ctx, func(tx pgx.Tx) error {
		records, err := lockRevocations(ctx, tx, adds, &at)
		if err != nil {
			return err
		}
		changed := mergeAll(records, adds, at.Revision-int64(len(adds)))
		if len(changed) == 0 {
			return errUnchanged
		}
		return putRevocations(ctx, tx, records, changed)
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	if err == nil {
		db.wrote(at)
	}
	return err
}

// wrote tells the readers of revocations, which may have the records before they read them.
func (db *DB) wrote(at place) {
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, f := range db.readers {
		f.wrote(at)
	}
}

// lockRevocations reserves a revision for each addition, the last of which is that of the place at, and reads the records that are stored
// for them. The row of revisions is locked first, so that no other node changes them meanwhile.
func lockRevocations(ctx context.Context, tx pgx.Tx, adds []*addition, at *place) (map[matcher]revocation.Record, error) {
	var kinds []string
	var issuers, values [][]byte
	for _, a := range adds {
		kinds = append(kinds, string(a.record.Kind))
		issuers, values = append(issuers, []byte(a.record.Issuer)), append(values, []byte(a.record.Value))
	}
	b := &pgx.Batch{}
	at.take(b, int64(len(adds)))
	records := make(map[matcher]revocation.Record, len(adds))
	b.Queue(`SELECT DISTINCT r.revision, r.record
		FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS m(kind, issuer, value)
		JOIN tollkeeper.revocations r ON r.kind = m.kind AND r.issuer = m.issuer AND r.value = m.value`,
		kinds, issuers, values).Query(func(rows pgx.Rows) error {
		stored, err := readRevocations(rows)
		for _, r := range stored {
			records[matcherOf(&r)] = r
		}
		return err
	})
	return records, tx.SendBatch(ctx, b).Close()
}

// mergeAll merges the additions into the records, one after the other, and returns which changed. The revisions follow on first.
func mergeAll(records map[matcher]revocation.Record, adds []*addition, revision int64) map[matcher]bool {
	changed := make(map[matcher]bool)
	for _, a := range adds {
		m, r := matcherOf(&a.record), a.record
		if old, ok := records[m]; ok {
			merged, differs := revocation.Merge(old, r)
			if !differs {
				a.stored = old
				continue
			}
			r = merged
		}
		revision++
		r.Revision = uint64(revision)
		a.stored, records[m], changed[m] = r, r, true
	}
	return changed
}

// putRevocations writes the records that changed, and tells the other nodes.
func putRevocations(ctx context.Context, tx pgx.Tx, records map[matcher]revocation.Record, changed map[matcher]bool) error {
	var kinds []string
	var issuers, values, bodies [][]byte
	var revisions []int64
	var expiries []*time.Time
	var rests []int16
	for m := range changed {
		r := records[m]
		body, err := json.Marshal(&r)
		if err != nil {
			return err
		}
		at, rest := instant(r.ExpiresAt)
		kinds, issuers, values = append(kinds, string(m.kind)), append(issuers, []byte(m.issuer)), append(values, []byte(m.value))
		revisions, bodies = append(revisions, int64(r.Revision)), append(bodies, body)
		expiries, rests = append(expiries, at), append(rests, rest)
	}
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO tollkeeper.revocations (kind, issuer, value, revision, expires_at, expires_ns, record)
		SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[], $5::timestamptz[], $6::smallint[], $7::bytea[])
		ON CONFLICT (kind, issuer, value) DO UPDATE SET revision = excluded.revision, expires_at = excluded.expires_at,
			expires_ns = excluded.expires_ns, record = excluded.record`, kinds, issuers, values, revisions, expiries, rests, bodies)
	b.Queue(notifyFeed)
	return tx.SendBatch(ctx, b).Close()
}

// instant is a time as the table has it, nil for none: to the microsecond, and the nanoseconds above it.
func instant(t time.Time) (*time.Time, int16) {
	if t.IsZero() {
		return nil, 0
	}
	at := t.Truncate(time.Microsecond).UTC()
	return &at, int16(t.Sub(at))
}

func readRevocations(rows pgx.Rows) ([]revocation.Record, error) {
	var out []revocation.Record
	var revision int64
	var body []byte
	_, err := pgx.ForEachRow(rows, []any{&revision, &body}, func() error {
		var r revocation.Record
		if err := json.Unmarshal(body, &r); err != nil {
			return authz.Errorf(authz.KindUnavailable, "the revocation of revision %d is damaged: %w", revision, err)
		}
		r.Revision = uint64(revision)
		out = append(out, r)
		return nil
	})
	return out, err
}

const selectRevocations = `SELECT revision, record FROM tollkeeper.revocations WHERE revision > $1 ORDER BY revision LIMIT $2`

// Since is revocation.Store.Since.
func (s *Revocations) Since(ctx context.Context, after uint64, limit int) (out []revocation.Record, err error) {
	if after >= math.MaxInt64 {
		return nil, nil // there is no later revision
	}
	err = s.db.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, selectRevocations, int64(after), limit)
		if err != nil {
			return err
		}
		out, err = readRevocations(rows)
		return err
	})
	return out, err
}

// Get is revocation.Store.Get.
func (s *Revocations) Get(ctx context.Context, kind revocation.Kind, issuer, value string) (r revocation.Record, found bool, err error) {
	err = s.db.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT revision, record FROM tollkeeper.revocations
			WHERE kind = $1 AND issuer = $2 AND value = $3`, string(kind), []byte(issuer), []byte(value))
		if err != nil {
			return err
		}
		stored, err := readRevocations(rows)
		if found = len(stored) > 0; found {
			r = stored[0]
		}
		return err
	})
	return r, found && err == nil, err
}

// Prune is revocation.Store.Prune. It passes over records that are being changed at the moment: a merge may extend them, and two
// nodes that prune at once share the work.
func (s *Revocations) Prune(ctx context.Context, now time.Time, limit int) (int, error) {
	if limit <= 0 {
		return 0, nil
	}
	at, rest := instant(now)
	if at == nil {
		return 0, nil // nothing expires before all times
	}
	var n int64
	err := s.db.tx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM tollkeeper.revocations WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM tollkeeper.revocations WHERE (expires_at, expires_ns) < ($1, $2)
			ORDER BY expires_at, expires_ns LIMIT $3 FOR UPDATE SKIP LOCKED))`, *at, rest, limit)
		if n = tag.RowsAffected(); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, forgetFeed)
		return err
	})
	return int(n), err
}

var _ revocation.Marks = (*Revocations)(nil)

// Mark is revocation.Marks.Mark.
func (s *Revocations) Mark(ctx context.Context) (m revocation.Mark, err error) {
	var body string
	err = s.db.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT coalesce((SELECT mark::text FROM tollkeeper.marks), '{}')`).Scan(&body)
	})
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		return revocation.Mark{}, authz.Errorf(authz.KindUnavailable, "the mark of the revocations is damaged: %w", err)
	}
	return m, nil
}

// Now is the clock of the database.
func (s *Revocations) Now(ctx context.Context) (now time.Time, err error) {
	err = s.db.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	})
	return now, err
}

// SetMark is revocation.Marks.SetMark.
func (s *Revocations) SetMark(ctx context.Context, m revocation.Mark) error {
	body, err := json.Marshal(&m)
	if err != nil {
		return authz.Errorf(authz.KindInvalid, "the mark cannot be stored: %w", err)
	}
	return s.db.tx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO tollkeeper.marks (mark) VALUES ($1::text::jsonb)
			ON CONFLICT (only_row) DO UPDATE SET mark = excluded.mark`, string(body))
		return err
	})
}
