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

// Set is the revocations in memory. Reads take no lock and never wait for a write; a record that was applied before a
// read began is seen by it. Use NewSet.
type Set struct {
	store        Store
	maxStaleness time.Duration
	now          func() time.Time
	skew         time.Duration

	records  *table
	revision atomic.Uint64
	syncedAt atomic.Pointer[time.Time] // when the store was last read to its end; its monotonic part counts

	// Prune holds both, and adding for writing, while it drops records from memory. So nobody has a record in hand that is
	// older than one that is dropped: applied after that, it would find nothing later in its place, and stay.
	syncing sync.Mutex   // held by one Sync at a time, while it reads the store
	adding  sync.RWMutex // held for reading by every Revoke, from before the store is asked until the record is applied
}

// NewSet makes an empty set over a store. It is stale, and so trusts nobody, until Sync has succeeded once.
func NewSet(store Store, maxStaleness time.Duration, now func() time.Time) *Set {
	return &Set{store: store, maxStaleness: maxStaleness, now: now, records: newTable()}
}

// AllowSkew says by how much the clocks of issuers may be ahead of ours. It is called before the set is used.
func (s *Set) AllowSkew(skew time.Duration) { s.skew = skew }

// Revoke makes a record durable and applies it: when it returns nil, no check that starts afterwards on this node
// trusts what it matches.
func (s *Set) Revoke(ctx context.Context, r Record) (Record, error) {
	if err := CheckRecord(r); err != nil {
		return Record{}, err
	}
	s.adding.RLock()
	defer s.adding.RUnlock()
	stored, err := s.store.Add(ctx, r)
	if err != nil {
		return Record{}, err
	}
	s.records.put(stored)
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
			s.records.put(r)
			s.revision.Store(r.Revision)
		}
		if len(page) < syncPage {
			s.syncedAt.Store(&began)
			return nil
		}
	}
}

// prunePage is how many records the store forgets at once. Other writes wait for that long.
const prunePage = 1000

// Prune is PruneBefore the present time. A Pruner also asks whether the clock can be right.
func (s *Set) Prune(ctx context.Context) error { return s.PruneBefore(ctx, s.now()) }

// PruneBefore forgets the records that expired before an instant, in the store and in memory: there also those that another
// node had the store forget. Revoke and Sync wait while it goes through memory, some hundredths of a second for a million
// records; reads do not.
func (s *Set) PruneBefore(ctx context.Context, now time.Time) error {
	for {
		n, err := s.store.Prune(ctx, now, prunePage)
		if err != nil {
			return err
		}
		if n < prunePage {
			break
		}
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.adding.Lock()
	defer s.adding.Unlock()
	s.records.drop(instant(now))
	return nil
}

// revoked reports whether a record cuts off what was issued at that instant. An empty value is nobody's.
func (s *Set) revoked(kind Kind, issuer, value string, issued int64) bool {
	if value == "" {
		return false
	}
	return issued <= s.records.before(matcher{kind, issuer, value})
}

// Key reports whether the key with that id was revoked.
func (s *Set) Key(id string) bool { return s.revoked(KindKey, "", id, instant(time.Time{})) }

// Account reports whether the credentials of that account that were issued at that instant are revoked.
func (s *Set) Account(id string, issued time.Time) bool {
	return s.revoked(KindAccount, "", id, instant(issued))
}

// Token reports whether anything that is known about a token cuts it off.
//
// An account is cut off by our clock, by which its keys are made, and not by that of its issuer: a token that was issued just
// before may say that it was issued a little later.
func (s *Set) Token(t *authz.TokenFact) bool {
	issued := instant(t.IssuedAt)
	return s.revoked(KindToken, "", t.Digest, issued) ||
		s.revoked(KindToken, "", t.ByClaims, issued) ||
		t.Session == "" && s.revoked(KindSessionless, t.Issuer, t.Subject, issued) ||
		s.revoked(KindJTI, t.Issuer, t.ID, issued) ||
		s.revoked(KindSession, t.Issuer, t.Session, issued) ||
		s.revoked(KindSubject, t.Issuer, t.Subject, issued) ||
		s.revoked(KindSuspension, t.Issuer, t.Subject, issued) ||
		s.revoked(KindClient, t.Issuer, t.Client, issued) ||
		s.revoked(KindSigningKey, t.Issuer, t.SigningKey, issued) ||
		s.revoked(KindAccount, "", t.Account, instant(t.IssuedAt.Add(-s.skew)))
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
func (s *Set) Len() int { return s.records.size() }

// Revision is the last revision that was read from the store.
func (s *Set) Revision() uint64 { return s.revision.Load() }
