package admin

import (
	"cmp"
	"context"
	"encoding/hex"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// createKey makes a key. The answer is the only place where its text ever appears.
func (s *Service) createKey(ctx context.Context, in KeyCreate) (Key, error) {
	a, err := s.Keys.Account(ctx, in.Account)
	if err != nil {
		if authz.KindOf(err) == authz.KindNotFound {
			return Key{}, authz.Errorf(authz.KindNotFound, "there is no account %q: make it with: tollkeeper account create %s", in.Account, in.Account)
		}
		return Key{}, err
	}
	now := s.Now().UTC()
	k := apikey.Key{
		ID: apikey.NewID("key"), Name: in.Name, Account: in.Account, Plan: in.Plan,
		Environment: cmp.Or(in.Environment, defaultEnvironment), Scopes: in.Scopes, NotBefore: in.NotBefore,
		ExpiresAt: in.ExpiresAt, Meta: in.Meta, CreatedAt: now, UpdatedAt: now, Version: 1,
	}
	k.Lineage = k.ID
	if err := s.checkKey(&k, a.Plan); err != nil {
		return Key{}, err
	}
	if err := apikey.CheckMeta(in.Meta); err != nil {
		return Key{}, err
	}
	if err := s.checkEnd(k.ExpiresAt, in.Force); err != nil {
		return Key{}, err
	}
	text, err := apikey.NewText(k.Environment)
	if err != nil {
		return Key{}, err
	}
	k.Digest = s.Hasher.Text(text)
	made, err := s.Keys.CreateKey(ctx, k)
	if err != nil {
		return Key{}, err
	}
	out, err := s.viewKey(ctx, made)
	out.Key = text
	return out, err
}

// checkKey refuses a key that could never work. AccountPlan is the plan of its account.
func (s *Service) checkKey(k *apikey.Key, accountPlan string) error {
	if err := apikey.CheckScopes(k.Scopes); err != nil {
		return err
	}
	if err := apikey.CheckEnvironment(k.Environment); err != nil {
		return err
	}
	if !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(k.NotBefore) {
		return authz.Errorf(authz.KindInvalid, "the key would expire at %s, before it becomes valid at %s",
			k.ExpiresAt.Format(time.RFC3339), k.NotBefore.Format(time.RFC3339))
	}
	if k.Plan == "" && accountPlan == "" && len(s.Plans()) > 0 {
		return authz.Errorf(authz.KindInvalid, "account %q has no plan, so the key needs one: %s", k.Account, s.planNames())
	}
	return s.checkPlan(k.Plan)
}

func (s *Service) key(ctx context.Context, id string) (Key, error) {
	k, err := s.Keys.Key(ctx, id)
	if err != nil {
		return Key{}, err
	}
	return s.viewKey(ctx, k)
}

// lookup finds a key by the SHA-256 of its text, so that the text itself is not sent.
func (s *Service) lookup(ctx context.Context, sum string) (Key, error) {
	d, err := s.digest(sum)
	if err != nil {
		return Key{}, err
	}
	k, err := s.Keys.Find(ctx, d)
	if err != nil {
		return Key{}, err
	}
	return s.viewKey(ctx, k)
}

func (s *Service) digest(sum string) (apikey.Digest, error) {
	raw, err := hex.DecodeString(sum)
	if err != nil || len(raw) != len(apikey.Digest{}) {
		return apikey.Digest{}, authz.Errorf(authz.KindInvalid, "sha256 %q: want 64 hexadecimal digits", sum)
	}
	return s.Hasher.Sum(apikey.Digest(raw)), nil
}

func (s *Service) updateKey(ctx context.Context, id string, in KeyUpdate) (Key, error) {
	change := apikey.KeyChange{
		At: s.Now().UTC(), Name: in.Name, Plan: in.Plan, Scopes: in.Scopes, Disabled: in.Disabled, ExpiresAt: in.ExpiresAt, Meta: in.Meta,
	}
	old, err := s.Keys.Key(ctx, id)
	if err != nil {
		return Key{}, err
	}
	if err := s.checkAlive(old, &in); err != nil {
		return Key{}, err
	}
	if err := apikey.CheckMeta(in.Meta); err != nil {
		return Key{}, err
	}
	next, err := old.Apply(change)
	if err != nil {
		return Key{}, err
	}
	a, err := s.Keys.Account(ctx, old.Account)
	if err != nil {
		return Key{}, err
	}
	if in.Plan != nil || in.Scopes != nil || in.ExpiresAt != nil {
		if err := s.checkKey(next, a.Plan); err != nil {
			return Key{}, err
		}
	}
	if in.ExpiresAt != nil {
		if err := s.checkEnd(*in.ExpiresAt, in.Force); err != nil {
			return Key{}, err
		}
	}
	k, err := s.Keys.AmendKey(ctx, id, change)
	if err != nil {
		return Key{}, err
	}
	return s.viewKey(ctx, k)
}

// rotateKey makes a successor. Both keys work until the overlap ends.
func (s *Service) rotateKey(ctx context.Context, id string, overlap time.Duration) (Rotation, error) {
	if overlap < 0 {
		return Rotation{}, authz.Errorf(authz.KindInvalid, "overlap %v: want 0 or more", overlap)
	}
	k, err := s.Keys.Key(ctx, id)
	if err != nil {
		return Rotation{}, err
	}
	now := s.Now().UTC() // before revocations are read: if the account is revoked in between, the successor is, too
	if err := s.checkRotation(k, now); err != nil {
		return Rotation{}, err
	}
	text, err := apikey.NewText(cmp.Or(k.Environment, defaultEnvironment))
	if err != nil {
		return Rotation{}, err
	}
	next := apikey.SuccessorOf(k, apikey.NewID("key"), s.Hasher.Text(text), now)
	old, made, err := s.Keys.RotateKey(ctx, id, next, now.Add(overlap))
	if err != nil {
		return Rotation{}, err
	}
	var out Rotation
	if out.Old, err = s.viewKey(ctx, old); err != nil {
		return Rotation{}, err
	}
	out.Successor, err = s.viewKey(ctx, made)
	out.Successor.Key = text
	return out, err
}

func (s *Service) revokeKey(ctx context.Context, id, cause string) (Revoked, error) {
	if _, err := s.Keys.Key(ctx, id); err != nil {
		return Revoked{}, err
	}
	return s.revoke(ctx, revocation.Record{Kind: revocation.KindKey, Value: id, At: s.Now().UTC(), Cause: cause})
}
