package memory

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// Ledger is a quota.Ledger.
type Ledger struct {
	*quota.LocalMembers
	now func() time.Time

	mu      sync.Mutex
	records map[quota.HolderID]*quota.Record
	journal map[string]entry   // credits, resets and releases by ID
	settled map[string]settled // by ID
	order   []string           // the ids in settled, oldest first
}

// entry is the credit, reset or release for which an ID was used.
type entry struct {
	verb   string
	bucket quota.Bucket
	units  int64
}

type settled struct {
	at     time.Time
	answer quota.Settlement
}

var _ quota.Ledger = (*Ledger)(nil)

// NewLedger makes an empty ledger with that clock.
func NewLedger(now func() time.Time) *Ledger {
	return &Ledger{
		LocalMembers: quota.NewLocalMembers(now),
		now:          now,
		records:      make(map[quota.HolderID]*quota.Record),
		journal:      make(map[string]entry),
		settled:      make(map[string]settled),
	}
}

// Lease is quota.Ledger.Lease.
func (s *Ledger) Lease(_ context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out, at := make([]quota.Answer, len(rs)), s.at()
	for i := range rs {
		r := s.recordLocked(rs[i].Holder)
		if out[i] = r.Lease(&rs[i], at); out[i].Err == nil {
			s.records[rs[i].Holder] = r
		}
		if out[i].Lost {
			s.Lost(at.Time)
			at = s.at()
		}
	}
	return out, nil
}

// Settle is quota.Ledger.Settle.
func (s *Ledger) Settle(_ context.Context, r quota.SettleRequest) (quota.Settlement, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.at()
	if r.ID == "" {
		return quota.Settlement{}, authz.Errorf(authz.KindInvalid, "a settlement needs an id")
	}
	for len(s.order) > 0 && at.Time.Sub(s.settled[s.order[0]].at) > quota.SettleMemory {
		delete(s.settled, s.order[0])
		s.order = s.order[1:]
	}
	if old, ok := s.settled[r.ID]; ok {
		return old.answer, nil
	}
	record := s.recordLocked(r.Bucket.HolderID())
	answer, err := record.Book(r.Bucket.CountKey()).Settle(r, at)
	if err != nil {
		return quota.Settlement{}, err
	}
	s.records[r.Bucket.HolderID()], s.settled[r.ID] = record, settled{at: at.Time, answer: answer}
	s.order = append(s.order, r.ID)
	return answer, nil
}

// Credit is quota.Ledger.Credit.
func (s *Ledger) Credit(_ context.Context, r quota.CreditRequest) (quota.Balance, error) {
	return s.once(r.ID, entry{"credit", r.Bucket, r.Units}, r.Limit, func(b *quota.Book, at quota.Instant) error { return b.Credit(r, at.Time) })
}

// Reset is quota.Ledger.Reset.
func (s *Ledger) Reset(_ context.Context, r quota.ResetRequest) (quota.Balance, error) {
	return s.once(r.ID, entry{verb: "reset", bucket: r.Bucket}, r.Limit, func(b *quota.Book, at quota.Instant) error { return b.Reset(r, at) })
}

// Release is quota.Ledger.Release.
func (s *Ledger) Release(_ context.Context, r quota.ReleaseRequest) (quota.Balance, error) {
	return s.once(r.ID, entry{"release", r.Bucket, r.Units}, r.Limit, func(b *quota.Book, at quota.Instant) error { return b.Release(r, at) })
}

// once applies a verb unless its ID was used before.
func (s *Ledger) once(id string, e entry, l authz.Limit, verb func(*quota.Book, quota.Instant) error) (quota.Balance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == "" {
		return quota.Balance{}, authz.Errorf(authz.KindInvalid, "a %s needs an id", e.verb)
	}
	at, record := s.at(), s.recordLocked(e.bucket.HolderID())
	book := record.Book(e.bucket.CountKey())
	if old, used := s.journal[id]; used {
		if old != e {
			return quota.Balance{}, authz.Errorf(authz.KindConflict, "id %q was used for a %s of something else", id, old.verb)
		}
		return book.Balance(e.bucket, l, at), nil
	}
	if err := verb(book, at); err != nil {
		return quota.Balance{}, err
	}
	s.records[e.bucket.HolderID()], s.journal[id] = record, e
	return s.recordLocked(e.bucket.HolderID()).Book(e.bucket.CountKey()).Balance(e.bucket, l, at), nil
}

// Balance is quota.Ledger.Balance.
func (s *Ledger) Balance(_ context.Context, b quota.Bucket, l authz.Limit) (quota.Balance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recordLocked(b.HolderID()).Book(b.CountKey()).Balance(b, l, s.at()), nil
}

// Stranded is quota.Ledger.Stranded.
func (s *Ledger) Stranded(ctx context.Context, each func(quota.Stranding) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h, r := range s.records {
		if err := ctx.Err(); err != nil {
			return authz.Errorf(authz.KindUnavailable, "not read to the end: %w", err)
		}
		if !r.Stranded(h, s.at(), each) {
			break
		}
	}
	return nil
}

// Forget is quota.Ledger.Forget.
func (s *Ledger) Forget(context.Context) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, now := len(s.records), s.at().Time
	maps.DeleteFunc(s.records, func(_ quota.HolderID, r *quota.Record) bool { return r.Forgettable(now) })
	return before - len(s.records), nil
}

// Check returns an error that names the first broken invariant of any book.
func (s *Ledger) Check(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h, r := range s.records {
		if err := r.Check(); err != nil {
			return authz.Errorf(authz.KindConflict, "holder %+v: %w", h, err)
		}
	}
	return nil
}

// Copy makes a copy of the ledger, as a standby has it. takeOver has the copy answer in its place from then on, as another
// incarnation: what was committed after the copy is lost.
func (s *Ledger) Copy() (takeOver func(incarnation string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	records, journal, settled := make(map[quota.HolderID]*quota.Record), maps.Clone(s.journal), maps.Clone(s.settled)
	for h, r := range s.records {
		records[h] = r.Clone()
	}
	order, roll := slices.Clone(s.order), s.LocalMembers.Copy()
	return func(incarnation string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.records, s.journal, s.settled, s.order = records, journal, settled, order
		roll()
		s.Notice(incarnation, false, s.now())
	}
}

// at is the ledger's time, in the form in which other stores keep it.
func (s *Ledger) at() quota.Instant { return s.At(s.now().UTC().Round(0)) }

// recordLocked is a copy of the holder's record: a verb that is refused changes only the copy.
func (s *Ledger) recordLocked(h quota.HolderID) *quota.Record {
	if r := s.records[h]; r != nil {
		return r.Clone()
	}
	return &quota.Record{}
}
