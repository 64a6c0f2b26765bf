// Package revocation knows who is cut off: the records that say so, the contract of the store that keeps them, and the
// set in memory that every request is matched against.
package revocation

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Merge returns the record that cuts off everything that either of the two does, and whether it differs from old. Both
// are for the same kind, issuer and value.
func Merge(old, add Record) (Record, bool) {
	out := old
	if wider(add.Before, old.Before) {
		out.Before, out.At, out.Cause = add.Before, add.At, add.Cause
	}
	if wider(add.ExpiresAt, old.ExpiresAt) {
		out.ExpiresAt = add.ExpiresAt
	}
	return out, !out.Before.Equal(old.Before) || !out.ExpiresAt.Equal(old.ExpiresAt)
}

// wider reports whether a bound reaches further than another, where zero has no end.
func wider(a, b time.Time) bool {
	if a.IsZero() || b.IsZero() {
		return a.IsZero() && !b.IsZero()
	}
	return a.After(b)
}

// CheckRecord returns an error if the record could match nothing or too much.
func CheckRecord(r Record) error {
	switch {
	case r.Value == "":
		return authz.Errorf(authz.KindInvalid, "a revocation needs the id of what it revokes")
	case r.Kind != KindKey && r.Kind != KindAccount:
		return authz.Errorf(authz.KindInvalid, "cannot revoke a %q", r.Kind)
	case r.Kind == KindAccount && r.Before.IsZero():
		return authz.Errorf(authz.KindInvalid, "revoking an account needs the instant up to which its keys are cut off")
	}
	return nil
}

// matcher is what a record is found by.
type matcher struct {
	kind          Kind
	issuer, value string
}

// Set is the revocations in memory. Reads take no lock and never wait for a write; a record that was applied before a
// read began is seen by it. Use NewSet.
type Set struct {
	store        Store
	maxStaleness time.Duration
	now          func() time.Time

	records  sync.Map // matcher -> Record
	count    atomic.Int64
	revision atomic.Uint64
	syncedAt atomic.Pointer[time.Time] // when the store was last read to its end; its monotonic part counts

	syncing sync.Mutex // held by one Sync at a time, while it reads the store
	mu      sync.Mutex // held while a record takes its place, never during I/O
}

// NewSet makes an empty set over a store. It is stale, and so trusts nobody, until Sync has succeeded once.
func NewSet(store Store, maxStaleness time.Duration, now func() time.Time) *Set {
	return &Set{store: store, maxStaleness: maxStaleness, now: now}
}

// Revoke makes a record durable and applies it: when it returns nil, no check that starts afterwards on this node
// trusts what it matches.
func (s *Set) Revoke(ctx context.Context, r Record) (Record, error) {
	if err := CheckRecord(r); err != nil {
		return Record{}, err
	}
	stored, err := s.store.Add(ctx, r)
	if err != nil {
		return Record{}, err
	}
	s.apply(stored)
	return stored, nil
}

// syncPage is how many records are read from the store at once.
const syncPage = 10_000

// Sync reads what is new in the store. The server calls it at start and then at short intervals.
func (s *Set) Sync(ctx context.Context) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	began := s.now()
	for {
		page, err := s.store.Since(ctx, s.revision.Load(), syncPage)
		if err != nil {
			return err
		}
		for _, r := range page {
			s.apply(r)
			s.revision.Store(r.Revision)
		}
		if len(page) < syncPage {
			s.syncedAt.Store(&began)
			return nil
		}
	}
}

// apply puts a record in its place unless a later one stands there already.
func (s *Set) apply(r Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.records.Load(matcher{r.Kind, r.Issuer, r.Value}); ok && old.(Record).Revision >= r.Revision {
		return
	}
	if _, replaced := s.records.Swap(matcher{r.Kind, r.Issuer, r.Value}, r); !replaced {
		s.count.Add(1)
	}
}

// Key reports whether the key with that id was revoked.
func (s *Set) Key(id string) bool {
	_, ok := s.records.Load(matcher{kind: KindKey, value: id})
	return ok
}

// Account reports whether the credentials of that account that were issued at that instant are revoked.
func (s *Set) Account(id string, issued time.Time) bool {
	v, ok := s.records.Load(matcher{kind: KindAccount, value: id})
	if !ok {
		return false
	}
	before := v.(Record).Before
	return before.IsZero() || !issued.After(before)
}

// Stale reports whether the set may lack records that were acknowledged elsewhere.
func (s *Set) Stale() bool { return s.Age() > s.maxStaleness }

// Age is how long ago the set was last known to be complete.
func (s *Set) Age() time.Duration {
	at := s.syncedAt.Load()
	if at == nil {
		return time.Duration(1<<63 - 1)
	}
	return s.now().Sub(*at)
}

// Len is the number of records.
func (s *Set) Len() int { return int(s.count.Load()) }

// Revision is the last revision that was read from the store.
func (s *Set) Revision() uint64 { return s.revision.Load() }
