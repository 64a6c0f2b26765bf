package memory

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// Ledger is a quota.Ledger.
type Ledger struct {
	quota.LocalNodes
	now func() time.Time

	mu      sync.Mutex
	books   map[quota.Bucket]*quota.Book
	journal map[string]entry   // credits and resets by ID
	settled map[string]settled // by ID
	order   []string           // the ids in settled, oldest first
}

// entry is the credit or reset for which an ID was used.
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
		now:     now,
		books:   make(map[quota.Bucket]*quota.Book),
		journal: make(map[string]entry),
		settled: make(map[string]settled),
	}
}

// Lease is quota.Ledger.Lease.
func (s *Ledger) Lease(_ context.Context, r quota.LeaseRequest) (quota.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bookLocked(r.Bucket)
	lease, err := b.Lease(r, s.clock())
	if err != nil {
		return quota.Lease{}, err
	}
	s.books[r.Bucket] = b
	return lease, nil
}

// Return is quota.Ledger.Return.
func (s *Ledger) Return(_ context.Context, r quota.ReturnRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bookLocked(r.Bucket)
	if err := b.Return(r, s.clock()); err != nil {
		return err
	}
	s.books[r.Bucket] = b
	return nil
}

// Settle is quota.Ledger.Settle.
func (s *Ledger) Settle(_ context.Context, r quota.SettleRequest) (quota.Settlement, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock()
	if r.ID == "" {
		return quota.Settlement{}, authz.Errorf(authz.KindInvalid, "a settlement needs an id")
	}
	for len(s.order) > 0 && now.Sub(s.settled[s.order[0]].at) > quota.SettleMemory {
		delete(s.settled, s.order[0])
		s.order = s.order[1:]
	}
	if old, ok := s.settled[r.ID]; ok {
		return old.answer, nil
	}
	b := s.bookLocked(r.Bucket)
	answer, err := b.Settle(r, now)
	if err != nil {
		return quota.Settlement{}, err
	}
	s.books[r.Bucket], s.settled[r.ID] = b, settled{at: now, answer: answer}
	s.order = append(s.order, r.ID)
	return answer, nil
}

// Credit is quota.Ledger.Credit.
func (s *Ledger) Credit(_ context.Context, r quota.CreditRequest) (quota.Balance, error) {
	return s.once(r.ID, entry{"credit", r.Bucket, r.Units}, r.Limit, func(b *quota.Book, now time.Time) error { return b.Credit(r, now) })
}

// Reset is quota.Ledger.Reset.
func (s *Ledger) Reset(_ context.Context, r quota.ResetRequest) (quota.Balance, error) {
	return s.once(r.ID, entry{verb: "reset", bucket: r.Bucket}, r.Limit, func(b *quota.Book, now time.Time) error { return b.Reset(r, now) })
}

// once applies a verb unless its ID was used before.
func (s *Ledger) once(id string, e entry, l authz.Limit, verb func(*quota.Book, time.Time) error) (quota.Balance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == "" {
		return quota.Balance{}, authz.Errorf(authz.KindInvalid, "a credit or a reset needs an id")
	}
	now, b := s.clock(), s.bookLocked(e.bucket)
	if old, used := s.journal[id]; used {
		if old != e {
			return quota.Balance{}, authz.Errorf(authz.KindConflict, "id %q was used for something else", id)
		}
		return b.Balance(e.bucket, l, now), nil
	}
	if err := verb(b, now); err != nil {
		return quota.Balance{}, err
	}
	s.books[e.bucket], s.journal[id] = b, e
	return clone(b).Balance(e.bucket, l, now), nil
}

// Balance is quota.Ledger.Balance.
func (s *Ledger) Balance(_ context.Context, b quota.Bucket, l authz.Limit) (quota.Balance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bookLocked(b).Balance(b, l, s.clock()), nil
}

// Forget is quota.Ledger.Forget.
func (s *Ledger) Forget(context.Context) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, now := len(s.books), s.clock()
	maps.DeleteFunc(s.books, func(_ quota.Bucket, b *quota.Book) bool { return b.Forgettable(now) })
	return before - len(s.books), nil
}

// Check returns an error that names the first broken invariant of any book.
func (s *Ledger) Check(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for bucket, b := range s.books {
		if err := b.Check(); err != nil {
			return authz.Errorf(authz.KindConflict, "bucket %+v: %w", bucket, err)
		}
	}
	return nil
}

// clock is the ledger's time, in the form in which other stores keep it.
func (s *Ledger) clock() time.Time { return s.now().UTC().Round(0) }

// bookLocked is a copy of the bucket's book: a verb that is refused changes only the copy.
func (s *Ledger) bookLocked(b quota.Bucket) *quota.Book {
	if book := s.books[b]; book != nil {
		return clone(book)
	}
	return &quota.Book{}
}

func clone(b *quota.Book) *quota.Book {
	return &quota.Book{
		Current: clonePage(b.Current), Previous: clonePage(b.Previous), Prepaid: clonePage(b.Prepaid),
		Seen: maps.Clone(b.Seen),
	}
}

func clonePage(p *quota.Page) *quota.Page {
	if p == nil {
		return nil
	}
	out := *p
	out.Held = maps.Clone(p.Held)
	return &out
}
