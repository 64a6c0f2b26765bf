package bolt

import (
	"context"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// Ledger is a quota.Ledger. quota.Book does the arithmetic; this file loads books, stores them, and remembers ids.
type Ledger struct {
	db                *DB
	*quota.LocalNodes // one process has the file to itself
}

var _ quota.Ledger = (*Ledger)(nil)

// Ledger returns the quotas of the file.
func (db *DB) Ledger() *Ledger { return &Ledger{db, &db.nodes} }

// Lease is quota.Ledger.Lease.
func (s *Ledger) Lease(ctx context.Context, r quota.LeaseRequest) (quota.Lease, error) {
	return mutate(ctx, s.db.ledger, func(w *write) (lease quota.Lease, err error) {
		now := s.clock()
		err = w.changeBook(r.Bucket, func(b *quota.Book) (err error) {
			lease, err = b.Lease(r, now)
			return err
		})
		return lease, err
	})
}

// Return is quota.Ledger.Return.
func (s *Ledger) Return(ctx context.Context, r quota.ReturnRequest) error {
	return s.db.ledger.do(ctx, func(w *write) error {
		now := s.clock()
		return w.changeBook(r.Bucket, func(b *quota.Book) error { return b.Return(r, now) })
	})
}

// settled remembers a settlement, so that the same one is answered again and not charged again.
type settled struct {
	At     time.Time        `json:"at"`
	Answer quota.Settlement `json:"answer"`
}

// Settle is quota.Ledger.Settle.
func (s *Ledger) Settle(ctx context.Context, r quota.SettleRequest) (quota.Settlement, error) {
	if r.ID == "" {
		return quota.Settlement{}, authz.Errorf(authz.KindInvalid, "a settlement needs an id")
	}
	return mutate(ctx, s.db.ledger, func(w *write) (quota.Settlement, error) {
		now := s.clock()
		old, err := decode[settled](w.get(bucketSettled, []byte(r.ID)))
		if err != nil {
			return quota.Settlement{}, err
		}
		if old != nil && now.Sub(old.At) <= quota.SettleMemory {
			return old.Answer, nil
		}
		record := settled{At: now}
		if err := w.changeBook(r.Bucket, func(b *quota.Book) (err error) {
			record.Answer, err = b.Settle(r, now)
			return err
		}); err != nil {
			return quota.Settlement{}, err
		}
		if old != nil { // was to be forgotten at its old instant
			if err := w.delete(bucketSettledAt, settledAt(old.At, r.ID)); err != nil {
				return quota.Settlement{}, err
			}
		}
		return record.Answer, putSettled(w, r.ID, &record)
	})
}

func settledAt(at time.Time, id string) []byte {
	return append(numberKey(uint64(at.UnixNano())), id...)
}

func putSettled(w *write, id string, record *settled) error {
	if _, err := putJSON(w, bucketSettled, []byte(id), record); err != nil {
		return err
	}
	return w.put(bucketSettledAt, settledAt(record.At, id), nil)
}

// entry says what the id of a credit or a reset was used for. It is kept for good.
type entry struct {
	Verb   string       `json:"verb"`
	Bucket quota.Bucket `json:"bucket"`
	Units  int64        `json:"units,omitempty"`
	Note   string       `json:"note,omitempty"`
	At     time.Time    `json:"at"`
}

// Credit is quota.Ledger.Credit.
func (s *Ledger) Credit(ctx context.Context, r quota.CreditRequest) (quota.Balance, error) {
	e := entry{Verb: "credit", Bucket: r.Bucket, Units: r.Units, Note: r.Note}
	return s.once(ctx, r.ID, e, r.Limit, func(b *quota.Book, now time.Time) error { return b.Credit(r, now) })
}

// Reset is quota.Ledger.Reset.
func (s *Ledger) Reset(ctx context.Context, r quota.ResetRequest) (quota.Balance, error) {
	e := entry{Verb: "reset", Bucket: r.Bucket}
	return s.once(ctx, r.ID, e, r.Limit, func(b *quota.Book, now time.Time) error { return b.Reset(r, now) })
}

// once applies a verb unless its id was used before, and returns the balance.
func (s *Ledger) once(ctx context.Context, id string, e entry, l authz.Limit, verb func(*quota.Book, time.Time) error) (quota.Balance, error) {
	if id == "" {
		return quota.Balance{}, authz.Errorf(authz.KindInvalid, "a %s needs an id", e.Verb)
	}
	return mutate(ctx, s.db.ledger, func(w *write) (quota.Balance, error) {
		now := s.clock()
		old, err := decode[entry](w.get(bucketJournal, []byte(id)))
		if err != nil {
			return quota.Balance{}, err
		}
		switch {
		case old == nil:
			if err := w.changeBook(e.Bucket, func(b *quota.Book) error { return verb(b, now) }); err != nil {
				return quota.Balance{}, err
			}
			record := e
			record.At = now
			if _, err := putJSON(w, bucketJournal, []byte(id), &record); err != nil {
				return quota.Balance{}, err
			}
		case old.Verb != e.Verb || !sameBucket(old.Bucket, e.Bucket) || old.Units != e.Units:
			return quota.Balance{}, authz.Errorf(authz.KindConflict, "id %q was used for a %s of something else", id, old.Verb)
		}
		b, err := w.book(e.Bucket)
		if err != nil {
			return quota.Balance{}, err
		}
		return balanceOf(b, e.Bucket, l, now)
	})
}

// sameBucket compares a bucket with that of an entry. Older versions wrote only its name.
func sameBucket(old, b quota.Bucket) bool {
	return old == b || old == quota.Bucket{Per: b.Per, Holder: b.Holder, Limit: b.Limit}
}

// Balance is quota.Ledger.Balance.
func (s *Ledger) Balance(ctx context.Context, bucket quota.Bucket, l authz.Limit) (quota.Balance, error) {
	var out quota.Balance
	err := s.db.viewLedger(ctx, func(r reader) error {
		b, _, err := loadBook(r, bucket)
		if err == nil {
			out = b.Balance(bucket, l, s.clock())
		}
		return err
	})
	return out, err
}

// clock is the ledger's time, without its location and monotonic part, which are not stored.
func (s *Ledger) clock() time.Time { return s.db.now().UTC().Round(0) }
