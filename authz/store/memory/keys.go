package memory

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// Keys is an apikey.Store.
type Keys struct {
	mu       sync.RWMutex
	accounts map[string]*apikey.Account
	keys     map[string]*apikey.Key
	digests  map[apikey.Digest]string // digest -> id
}

var _ apikey.Store = (*Keys)(nil)

// NewKeys makes an empty store.
func NewKeys() *Keys {
	return &Keys{
		accounts: make(map[string]*apikey.Account),
		keys:     make(map[string]*apikey.Key),
		digests:  make(map[apikey.Digest]string),
	}
}

// Find is apikey.Store.Find.
func (s *Keys) Find(_ context.Context, d apikey.Digest) (*apikey.Key, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	id, ok := s.digests[d]
	if !ok {
		return nil, authz.Errorf(authz.KindNotFound, "no key has that digest")
	}
	return s.keys[id], nil
}

// Key is apikey.Store.Key.
func (s *Keys) Key(_ context.Context, id string) (*apikey.Key, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.keyLocked(id)
}

func (s *Keys) keyLocked(id string) (*apikey.Key, error) {
	k, ok := s.keys[id]
	if !ok {
		return nil, authz.Errorf(authz.KindNotFound, "no key %q", id)
	}
	return k, nil
}

// Account is apikey.Store.Account.
func (s *Keys) Account(_ context.Context, id string) (*apikey.Account, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.accountLocked(id)
}

func (s *Keys) accountLocked(id string) (*apikey.Account, error) {
	a, ok := s.accounts[id]
	if !ok {
		return nil, authz.Errorf(authz.KindNotFound, "no account %q", id)
	}
	return a, nil
}

// Keys is apikey.Store.Keys.
func (s *Keys) Keys(_ context.Context, p apikey.Page) ([]*apikey.Key, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return page(s.keys, p, func(k *apikey.Key) bool { return p.Account == "" || k.Account == p.Account }), nil
}

// Accounts is apikey.Store.Accounts.
func (s *Keys) Accounts(_ context.Context, p apikey.Page) ([]*apikey.Account, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return page(s.accounts, p, func(*apikey.Account) bool { return true }), nil
}

// OnPlans is apikey.Store.OnPlans.
func (s *Keys) OnPlans(_ context.Context, each func(apikey.PlanUse) error) error {
	s.mu.RLock()
	accounts, keys := slices.Collect(maps.Values(s.accounts)), slices.Collect(maps.Values(s.keys))
	s.mu.RUnlock()
	for _, a := range accounts {
		if a.Plan == "" {
			continue
		}
		if err := each(apikey.PlanUse{Plan: a.Plan, Account: a.ID}); err != nil {
			return err
		}
	}
	for _, k := range keys {
		if k.Plan == "" {
			continue
		}
		if err := each(k.PlanUse()); err != nil {
			return err
		}
	}
	return nil
}

func page[T any](all map[string]*T, p apikey.Page, wanted func(*T) bool) []*T {
	limit := p.Limit
	if limit <= 0 {
		limit = 100
	}
	var out []*T
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if len(out) == limit {
			break
		}
		if id > p.After && wanted(all[id]) {
			out = append(out, all[id])
		}
	}
	return out
}

// CreateAccount is apikey.Store.CreateAccount.
func (s *Keys) CreateAccount(_ context.Context, a apikey.Account) (*apikey.Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.ID == "" {
		return nil, authz.Errorf(authz.KindInvalid, "an account needs an id")
	}
	if _, taken := s.accounts[a.ID]; taken {
		return nil, authz.Errorf(authz.KindExists, "there is an account %q already", a.ID)
	}
	a.Version = 1
	s.accounts[a.ID] = &a
	return &a, nil
}

// AmendAccount is apikey.Store.AmendAccount.
func (s *Keys) AmendAccount(_ context.Context, id string, c apikey.AccountChange) (*apikey.Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.accountLocked(id)
	if err != nil {
		return nil, err
	}
	if a, err = a.Apply(c); err != nil {
		return nil, err
	}
	s.accounts[id] = a
	return a, nil
}

// CreateKey is apikey.Store.CreateKey.
func (s *Keys) CreateKey(_ context.Context, k apikey.Key) (*apikey.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.vacantLocked(&k); err != nil {
		return nil, err
	}
	if _, err := s.accountLocked(k.Account); err != nil {
		return nil, err
	}
	return s.addLocked(k), nil
}

func (s *Keys) vacantLocked(k *apikey.Key) error {
	if k.ID == "" {
		return authz.Errorf(authz.KindInvalid, "a key needs an id")
	}
	if _, taken := s.keys[k.ID]; taken {
		return authz.Errorf(authz.KindExists, "there is a key %q already", k.ID)
	}
	if id, taken := s.digests[k.Digest]; taken {
		return authz.Errorf(authz.KindExists, "key %q has the same text as key %q", k.ID, id)
	}
	return nil
}

func (s *Keys) addLocked(k apikey.Key) *apikey.Key {
	k.Version = 1
	if k.Lineage == "" {
		k.Lineage = k.ID
	}
	s.keys[k.ID], s.digests[k.Digest] = &k, k.ID
	return &k
}

// AmendKey is apikey.Store.AmendKey.
func (s *Keys) AmendKey(_ context.Context, id string, c apikey.KeyChange) (*apikey.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.keyLocked(id)
	if err != nil {
		return nil, err
	}
	if k, err = k.Apply(c); err != nil {
		return nil, err
	}
	s.keys[id] = k
	return k, nil
}

// RotateKey is apikey.Store.RotateKey.
func (s *Keys) RotateKey(_ context.Context, id string, successor apikey.Key, overlapEnds time.Time) (old, made *apikey.Key, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, err = s.keyLocked(id); err != nil {
		return nil, nil, err
	}
	successor.Lineage = old.Lineage // whatever the caller says: a second lineage would get a second balance
	if old, err = old.Rotate(successor.ID, successor.CreatedAt, overlapEnds); err != nil {
		return nil, nil, err
	}
	if err := s.vacantLocked(&successor); err != nil {
		return nil, nil, err
	}
	if _, err := s.accountLocked(successor.Account); err != nil {
		return nil, nil, err
	}
	s.keys[id] = old
	return old, s.addLocked(successor), nil
}
