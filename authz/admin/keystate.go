package admin

import (
	"context"
	"fmt"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// The state of keys, and which changes a key and its account still allow.

func (s *Service) isRevoked(k *apikey.Key) bool {
	return s.Revocations.Key(k.ID) || s.Revocations.Account(k.Account, k.CreatedAt)
}

// statusOf returns the status that a request with the key would find, without regard to its account.
func (s *Service) statusOf(k *apikey.Key) authz.KeyStatus {
	if s.isRevoked(k) {
		return authz.KeyRevoked
	}
	return k.StatusAt(s.Now())
}

// checkAlive refuses a change that no request will ever see, because the key never works again. Names and meta can still be
// corrected.
func (s *Service) checkAlive(k *apikey.Key, in *KeyUpdate) error {
	if in.Disabled == nil && in.Plan == nil && in.Scopes == nil && in.ExpiresAt == nil {
		return nil
	}
	switch s.statusOf(k) {
	case authz.KeyRevoked:
		return authz.Errorf(authz.KindConflict, "key %q is revoked, which cannot be undone: make a new one", k.ID)
	case authz.KeyRotated:
		return authz.Errorf(authz.KindConflict, "key %q was replaced by %q: change that one", k.ID, k.Successor)
	}
	if at := in.ExpiresAt; at != nil && k.Successor != "" && (at.IsZero() || at.After(k.OverlapEnds)) {
		return authz.Errorf(authz.KindConflict, "key %q was rotated and works until %s, when the overlap ends: change its successor %q",
			k.ID, k.OverlapEnds.UTC().Format(time.RFC3339), k.Successor)
	}
	return nil
}

// checkRotation refuses to rotate a key if its successor would not work either.
func (s *Service) checkRotation(k *apikey.Key, now time.Time) error {
	switch {
	case s.isRevoked(k):
		return authz.Errorf(authz.KindConflict, "key %q is revoked: make a new one", k.ID)
	case k.Successor != "":
		return nil // the store refuses it
	case k.Disabled:
		return authz.Errorf(authz.KindConflict, "key %q is disabled, and so would be its successor: enable it first", k.ID)
	case k.StatusAt(now) == authz.KeyExpired:
		return authz.Errorf(authz.KindConflict, "key %q has expired, and so would have its successor: make a new one, or let it expire later first", k.ID)
	}
	return nil
}

// checkEnd refuses an expiry in the past, unless force is set.
func (s *Service) checkEnd(at time.Time, force bool) error {
	if force || at.IsZero() || at.After(s.Now()) {
		return nil
	}
	return authz.Errorf(authz.KindInvalid, "the key would be expired at once, for %s is over: repeat it with --force (force: true) if that is meant",
		at.UTC().Format(time.RFC3339))
}

// checkResume refuses to make an account active that is active and was revoked: its keys would stay revoked.
func (s *Service) checkResume(ctx context.Context, id string, to authz.AccountStatus) error {
	a, err := s.account(ctx, id)
	if err == nil && to == authz.AccountActive && a.Status == string(authz.AccountActive) && !a.RevokedBefore.IsZero() {
		return authz.Errorf(authz.KindConflict, "account %q is active, and the keys that it had at %s are revoked for good: make new ones with: tollkeeper key create --account %s",
			id, a.RevokedBefore.UTC().Format(time.RFC3339), id)
	}
	return err
}

// keyFilter selects the keys of a listing.
type keyFilter struct {
	page
	Account    string    `query:"account" doc:"Only keys of that account, which has to be there."`
	Status     string    `query:"status" enum:"active,not_yet_valid,expired,disabled,rotated,revoked"`
	EndsBefore time.Time `query:"ends_before" doc:"Only keys that work for now and do not after that instant: they expire, or their overlap ends."`
}

// keys lists the keys that the filter selects, in the order of their ids.
func (s *Service) keys(ctx context.Context, f *keyFilter) ([]Key, error) {
	if f.Account != "" { // a misspelt account would look like one without keys
		if _, err := s.Keys.Account(ctx, f.Account); err != nil {
			return nil, err
		}
	}
	const batch = 10_000
	out := make([]Key, 0, min(f.Limit, batch))
	for p := (apikey.Page{Account: f.Account, After: f.After, Limit: batch}); ; {
		list, err := s.Keys.Keys(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("listing: %w", err)
		}
		for _, k := range list {
			if !s.wanted(k, f) {
				continue
			}
			v, err := s.viewKey(ctx, k)
			if err != nil {
				return nil, fmt.Errorf("listing: %w", err)
			}
			if out = append(out, v); len(out) == f.Limit {
				return out, nil
			}
		}
		if len(list) < batch || ctx.Err() != nil {
			return out, ctx.Err()
		}
		p.After = list[len(list)-1].ID
	}
}

func (s *Service) wanted(k *apikey.Key, f *keyFilter) bool {
	status := s.statusOf(k)
	if f.Status != "" && f.Status != string(status) {
		return false
	}
	if f.EndsBefore.IsZero() {
		return true
	}
	over := status == authz.KeyRevoked || status == authz.KeyRotated || !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(s.Now())
	end := k.ExpiresAt
	if k.Successor != "" && (end.IsZero() || k.OverlapEnds.Before(end)) {
		end = k.OverlapEnds
	}
	return !over && !end.IsZero() && !end.After(f.EndsBefore)
}

func (s *Service) viewKey(ctx context.Context, k *apikey.Key) (Key, error) {
	out := Key{
		ID: k.ID, Name: k.Name, Account: k.Account, Plan: k.Plan, Environment: k.Environment, Status: string(s.statusOf(k)),
		Scopes: k.Scopes, NotBefore: k.NotBefore, ExpiresAt: k.ExpiresAt, Meta: k.Meta, Lineage: k.Lineage,
		Successor: k.Successor, OverlapEnds: k.OverlapEnds, CreatedAt: k.CreatedAt, UpdatedAt: k.UpdatedAt, Version: k.Version,
	}
	a, err := s.Keys.Account(ctx, k.Account)
	if err != nil {
		return Key{}, err
	}
	if a.Status != authz.AccountActive {
		out.AccountStatus = string(a.Status)
	}
	return out, nil
}
