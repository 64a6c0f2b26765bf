package postgres

import (
	"cmp"
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// forgetChunk is how many rows one statement looks at or deletes.
const forgetChunk = 2000

// deleteHolders deletes those records that nobody has changed or locked since they were read.
const deleteHolders = `DELETE FROM tollkeeper.holders h USING (
		SELECT l.per, l.holder FROM tollkeeper.holders l
		JOIN unnest($1::text[], $2::bytea[], $3::bytea[]) AS q (per, holder, record) ON l.per = q.per AND l.holder = q.holder AND l.record = q.record
		FOR UPDATE OF l SKIP LOCKED) AS old
	WHERE h.per = old.per AND h.holder = old.holder`

// deleteSettled deletes ids that are older than $1.
const deleteSettled = `DELETE FROM tollkeeper.settled WHERE id = ANY(ARRAY(
	SELECT id FROM tollkeeper.settled WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED))`

// Forget is quota.Ledger.Forget. It looks at a part of the records at a time. It deletes settled ids too, which it does not count. Of the nodes
// that serve, one does it for all.
func (s *Ledger) Forget(ctx context.Context) (int, error) {
	var (
		n      int
		from   quota.HolderID
		faults error
	)
	for {
		var (
			t   state
			old written
		)
		next, err := s.someRecords(ctx, from, &t, func(h quota.HolderID, r *quota.Record, text []byte) bool {
			if r.Forgettable(t.time) {
				old.holders, old.records = append(old.holders, h), append(old.records, text)
			}
			return true
		})
		if s.othersForget(&t) {
			return 0, nil
		}
		if err == nil && from == (quota.HolderID{}) {
			err = s.forgetSettled(ctx, &t)
		}
		gone, failed := s.forgetRecords(ctx, &old)
		n, faults = n+gone, cmp.Or(faults, failed, err)
		if next == nil || ctx.Err() != nil {
			return n, faults
		}
		from = *next
	}
}

// othersForget reports whether this process has nodes, and another one has the first of all.
func (s *Ledger) othersForget(t *state) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	serves := false
	for node := range s.joined {
		serves = serves || t.roll.Alive(node, t.time)
	}
	if !serves {
		return false
	}
	first := quota.NodeID("")
	for node := range t.roll.Members {
		if t.roll.Alive(node, t.time) && (first == "" || node < first) {
			first = node
		}
	}
	_, ours := s.joined[first]
	return !ours
}

func (s *Ledger) forgetRecords(ctx context.Context, old *written) (int, error) {
	if len(old.holders) == 0 {
		return 0, nil
	}
	var n int64
	pers, holders := keys(old.holders)
	err := s.db.tx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, deleteHolders, pers, holders, old.records)
		n = tag.RowsAffected()
		return err
	})
	return int(n), err
}

func (s *Ledger) forgetSettled(ctx context.Context, t *state) error {
	for {
		var n int64
		err := s.db.tx(ctx, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, deleteSettled, t.time.Add(-quota.SettleMemory), forgetChunk)
			n = tag.RowsAffected()
			return err
		})
		if err != nil || n < forgetChunk {
			return err
		}
	}
}

// eachRecord is what is done with a record. text is its binary form. It returns false if no more are wanted.
type eachRecord func(h quota.HolderID, r *quota.Record, text []byte) bool

// someRecords calls each for up to forgetChunk records behind a holder, and returns the last of these, nil at the end. It passes over
// damaged records; the error is about the first. t is the state as of then.
func (s *Ledger) someRecords(ctx context.Context, from quota.HolderID, t *state, each eachRecord) (next *quota.HolderID, err error) {
	const query = `SELECT per, holder, record FROM tollkeeper.holders WHERE (per, holder) > ($1, $2) ORDER BY per, holder LIMIT $3`
	var found written
	if err := s.look(ctx, t, func(b *pgx.Batch) {
		b.Queue(query, string(from.Per), []byte(from.Holder), forgetChunk).Query(found.scan)
	}); err != nil {
		return nil, err
	}
	n := len(found.holders)
	if n == forgetChunk {
		next = &found.holders[n-1]
	}
	var damage error
	for i, h := range found.holders {
		record, err := decodeRecord(h, found.records[i])
		if err != nil {
			damage = cmp.Or(damage, err)
			continue
		}
		if !each(h, record, found.records[i]) {
			return nil, damage
		}
	}
	return next, damage
}

// scan reads rows with the per, the holder and the record.
func (w *written) scan(rows pgx.Rows) error {
	*w = written{}
	for rows.Next() {
		var (
			h            quota.HolderID
			holder, text []byte
		)
		if err := rows.Scan(&h.Per, &holder, &text); err != nil {
			return err
		}
		h.Holder = string(holder)
		w.holders, w.records = append(w.holders, h), append(w.records, text)
	}
	return rows.Err()
}

// allRecords calls each for all records, until it returns false or ctx ends.
func (s *Ledger) allRecords(ctx context.Context, each func(quota.HolderID, *quota.Record, *state) bool) error {
	var (
		from   quota.HolderID
		faults error
	)
	for {
		var t state
		next, err := s.someRecords(ctx, from, &t, func(h quota.HolderID, r *quota.Record, _ []byte) bool { return each(h, r, &t) })
		if faults = cmp.Or(faults, err); next == nil {
			return faults
		}
		from = *next
	}
}

// Stranded is quota.Ledger.Stranded.
func (s *Ledger) Stranded(ctx context.Context, each func(quota.Stranding) bool) error {
	return s.allRecords(ctx, func(h quota.HolderID, r *quota.Record, t *state) bool { return r.Stranded(h, t.instant(), each) })
}

// Check returns an error that names the first broken invariant of any book.
func (s *Ledger) Check(ctx context.Context) error {
	var broken error
	err := s.allRecords(ctx, func(h quota.HolderID, r *quota.Record, _ *state) bool {
		if err := r.Check(); err != nil {
			broken = authz.Errorf(authz.KindConflict, "holder %+v: %w", h, err)
		}
		return broken == nil
	})
	return cmp.Or(broken, err)
}
