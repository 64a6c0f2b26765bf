package revocation

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation/digesttable"
)

// Set is the revocations in memory. Reads do no I/O and take no lock that all of them share. A read sees every record that was
// applied before it began. Use NewSet.
type Set struct {
	store        Store
	reader       Reader // of the store
	maxStaleness time.Duration
	now          func() time.Time
	skew         time.Duration

	records  *digesttable.Table[matcher, bounds]
	revision atomic.Uint64
	// era counts how often the store went back: revisions of a later era come after all of an earlier one. While the set is widening,
	// it reads the records of a new era for the first time, and what memory has in their place holds as well: the store may have lost it.
	era      atomic.Uint64
	widening atomic.Bool
	syncedAt atomic.Pointer[time.Time] // when the store was last read to its end; its monotonic part counts

	// PruneBefore holds both, and adding for writing, while it drops records from memory. So no record is on its way from the
	// store that is older than a dropped one: applied afterwards, it would find nothing later in its place, and stay. A new era
	// begins under both too, so that a record counts in the era in which the store returned it.
	syncing sync.Mutex   // held by one Sync at a time, while it reads the store
	adding  sync.RWMutex // held for reading by every Revoke, from before it asks the store until the record is applied
}

// NewSet makes an empty set over a store. It is stale, so that no request is trusted, until Sync has succeeded once.
func NewSet(store Store, maxStaleness time.Duration, now func() time.Time) *Set {
	s := &Set{store: store, reader: store, maxStaleness: maxStaleness, now: now, records: digesttable.New[matcher, bounds]()}
	if r, ok := store.(interface{ Reader() Reader }); ok {
		s.reader = r.Reader()
	}
	return s
}

// AllowSkew sets how far the clocks of issuers may be ahead of ours. Call it before the set is used.
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
	s.apply(stored)
	return stored, nil
}

// apply puts a record in its place, unless a later one stands there already.
func (s *Set) apply(r Record) {
	b := boundsOf(r)
	b.revision += s.era.Load() * eraSize
	s.records.Update(matcher{r.Kind, r.Issuer, r.Value}, func(old bounds, found bool) bounds {
		switch {
		case found && old.revision >= b.revision:
			return old
		case found && s.widening.Load():
			b.before, b.expires = max(old.before, b.before), max(old.expires, b.expires)
		}
		return b
	})
}

// eraSize is above every revision of a store.
const eraSize = 1 << 48

// syncPage is how many records are read from the store at once.
const syncPage = 10_000

// Sync reads the new records of the store. The server calls it at start and then at short intervals.
func (s *Set) Sync(ctx context.Context) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	began, again := s.now(), false
	for {
		page, err := s.reader.Since(ctx, s.revision.Load(), syncPage)
		if errors.Is(err, ErrWentBack) && !again {
			again = true
			s.beginEra()
			continue
		}
		if err != nil {
			return err
		}
		for _, r := range page {
			s.apply(r)
			s.revision.Store(r.Revision)
		}
		if len(page) < syncPage {
			s.widening.Store(false)
			s.syncedAt.Store(&began)
			return nil
		}
	}
}

// Restore takes over the records that an earlier process has left on this machine, for a start while the store cannot be read.
// The set is as old as they are then. The next Sync reads everything.
func (s *Set) Restore() error {
	c, ok := s.reader.(LocalCopy)
	if !ok {
		return authz.Errorf(authz.KindUnavailable, "the store keeps no local copy of the revocations")
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	at, err := c.ReadCopy(s.apply)
	s.beginEra()
	if err != nil {
		return err
	}
	now := s.now()
	age := now.Sub(at)
	if age < 0 {
		return authz.Errorf(authz.KindUnavailable, "the local copy of the revocations is of %s, and it is %s now: how old it is cannot be told", stamp(at), stamp(now))
	}
	at = now.Add(-age) // by the clock that does not jump
	s.syncedAt.Store(&at)
	return nil
}

// beginEra has everything read again, by a caller that holds syncing.
func (s *Set) beginEra() {
	s.adding.Lock()
	defer s.adding.Unlock()
	s.era.Add(1)
	s.widening.Store(true)
	s.revision.Store(0)
}

// prunePage is how many records the store forgets in one write, for which other writes wait.
const prunePage = 1000

// Prune forgets the records that have expired by now. Pruner.Prune first asks whether the clock can be right.
func (s *Set) Prune(ctx context.Context) error { return s.PruneBefore(ctx, s.now()) }

// PruneBefore forgets the records that expired before an instant, in the store and in memory. In memory it also drops records
// that another node had the store forget. Revoke and Sync wait while it goes through memory, less than 0.1 s for a million
// records; a read waits for a 256th of that at most.
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
	end := instant(now)
	s.records.Prune(func(b bounds) bool { return b.expires < end })
	return nil
}

// revoked reports whether a record cuts off what was issued at that instant. An empty value matches no record.
func (s *Set) revoked(kind Kind, issuer, value string, issued int64) bool {
	if value == "" {
		return false
	}
	b, found := s.records.Get(matcher{kind, issuer, value})
	return found && issued <= b.before
}

// Key reports whether the key with that id was revoked.
func (s *Set) Key(id string) bool { return s.revoked(KindKey, "", id, instant(time.Time{})) }

// Account reports whether credentials of that account are revoked if they were issued at that instant.
func (s *Set) Account(id string, issued time.Time) bool {
	return s.revoked(KindAccount, "", id, instant(issued))
}

// Token reports whether any record cuts off the token.
//
// An account is cut off at an instant of our clock, and a token carries an instant of its issuer's. A token that was issued
// just before may claim to be a little younger, so it counts as older by the skew.
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

// Stale reports whether the set may lack records that another node acknowledged.
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
func (s *Set) Len() int { return s.records.Len() }

// Revision is the revision of the last record that Sync has read.
func (s *Set) Revision() uint64 { return s.revision.Load() }
