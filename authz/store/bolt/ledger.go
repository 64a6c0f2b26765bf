package bolt

import (
	"context"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// Ledger is a quota.Ledger. quota.Record does the arithmetic; this file loads records, stores them, and remembers ids.
type Ledger struct {
	db                  *DB
	*quota.LocalMembers // one process has the file to itself
}

var _ quota.Ledger = (*Ledger)(nil)

// Ledger returns the quotas of the file.
func (db *DB) Ledger() *Ledger { return &Ledger{db, db.members} }

// Lease is quota.Ledger.Lease.
func (s *Ledger) Lease(ctx context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	return mutate(ctx, s.db.ledger, func(w *write) ([]quota.Answer, error) {
		out, at := make([]quota.Answer, len(rs)), s.at()
		for i := range rs {
			if out[i] = lease(w, &rs[i], at); out[i].Lost {
				s.Lost(at.Time)
				at = s.at()
			}
		}
		return out, nil
	})
}

// lease carries out one request. A record that is damaged refuses its own holder, and none of the others in the call.
func lease(w *write, r *quota.LeaseRequest, at quota.Instant) (a quota.Answer) {
	var err error
	if w.sharedBooks {
		for i := range r.Parts {
			if err == nil {
				err = w.splitOff(r.Holder, r.Parts[i].Count)
			}
		}
	}
	if err == nil {
		err = w.changeRecord(r.Holder, func(record *quota.Record) error {
			a = record.Lease(r, at)
			return a.Err
		})
	}
	if a.Err = err; err != nil && authz.KindOf(err) == authz.KindUnavailable {
		a.Err = authz.Errorf(authz.KindConflict, "nothing was leased: %w", err)
	}
	return a
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
		at := s.at()
		old, err := decode[settled](w.get(bucketSettled, []byte(r.ID)))
		if err != nil {
			return quota.Settlement{}, err
		}
		if old != nil && at.Time.Sub(old.At) <= quota.SettleMemory {
			return old.Answer, nil
		}
		record := settled{At: at.Time}
		if err := w.changeBook(r.Bucket, func(b *quota.Book) (err error) {
			record.Answer, err = b.Settle(r, at)
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
	if err := putJSON(w, bucketSettled, []byte(id), record); err != nil {
		return err
	}
	return w.put(bucketSettledAt, settledAt(record.At, id), nil)
}

// entry says for which credit, reset or release an id was used. It is kept for good.
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
	return s.once(ctx, r.ID, e, r.Limit, func(b *quota.Book, at quota.Instant) error { return b.Credit(r, at.Time) })
}

// Reset is quota.Ledger.Reset.
func (s *Ledger) Reset(ctx context.Context, r quota.ResetRequest) (quota.Balance, error) {
	e := entry{Verb: "reset", Bucket: r.Bucket}
	return s.once(ctx, r.ID, e, r.Limit, func(b *quota.Book, at quota.Instant) error { return b.Reset(r, at) })
}

// Release is quota.Ledger.Release.
func (s *Ledger) Release(ctx context.Context, r quota.ReleaseRequest) (quota.Balance, error) {
	e := entry{Verb: "release", Bucket: r.Bucket, Units: r.Units, Note: string(r.Node)}
	return s.once(ctx, r.ID, e, r.Limit, func(b *quota.Book, at quota.Instant) error { return b.Release(r, at) })
}

// once applies a verb unless its id was used before, and returns the balance.
func (s *Ledger) once(ctx context.Context, id string, e entry, l authz.Limit, verb func(*quota.Book, quota.Instant) error) (quota.Balance, error) {
	if id == "" {
		return quota.Balance{}, authz.Errorf(authz.KindInvalid, "a %s needs an id", e.Verb)
	}
	return mutate(ctx, s.db.ledger, func(w *write) (quota.Balance, error) {
		at := s.at()
		old, err := decode[entry](w.get(bucketJournal, []byte(id)))
		if err != nil {
			return quota.Balance{}, err
		}
		switch {
		case old == nil:
			if err := w.changeBook(e.Bucket, func(b *quota.Book) error { return verb(b, at) }); err != nil {
				return quota.Balance{}, err
			}
			record := e
			record.At = at.Time
			if err := putJSON(w, bucketJournal, []byte(id), &record); err != nil {
				return quota.Balance{}, err
			}
		case old.Verb != e.Verb || !sameBucket(old.Bucket, e.Bucket) || old.Units != e.Units:
			return quota.Balance{}, authz.Errorf(authz.KindConflict, "id %q was used for a %s of something else", id, old.Verb)
		}
		r, err := w.record(e.Bucket.HolderID())
		if err != nil {
			return quota.Balance{}, err
		}
		return r.record.Clone().Book(e.Bucket.CountKey()).Balance(e.Bucket, l, at), nil
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
		record, err := loadRecord(r, bucket.HolderID())
		if err != nil {
			return err
		}
		if s.db.sharedBooks && !record.Has(bucket.CountKey()) {
			_, book, _, err := sharedBook(r, bucket.HolderID(), bucket.CountKey())
			if err != nil {
				return err
			}
			if book != nil {
				*record.Book(bucket.CountKey()) = *book
			}
		}
		out = record.Book(bucket.CountKey()).Balance(bucket, l, s.at())
		return nil
	})
	return out, err
}

// at is the ledger's time, without its location and monotonic part, which are not stored.
func (s *Ledger) at() quota.Instant { return s.At(s.db.now().UTC().Round(0)) }
