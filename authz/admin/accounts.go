package admin

import (
	"context"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

func (s *Service) createAccount(ctx context.Context, in AccountCreate) (Account, error) {
	if err := apikey.CheckAccountID(in.ID); err != nil {
		return Account{}, err
	}
	if err := s.checkPlan(in.Plan); err != nil {
		return Account{}, err
	}
	if err := apikey.CheckMeta(in.Meta); err != nil {
		return Account{}, err
	}
	now := s.Now().UTC()
	a, err := s.Keys.CreateAccount(ctx, apikey.Account{
		ID: in.ID, Name: in.Name, Plan: in.Plan, Status: authz.AccountActive, Meta: in.Meta, CreatedAt: now, UpdatedAt: now, Version: 1,
	})
	if err != nil {
		return Account{}, err
	}
	return s.viewAccount(ctx, a)
}

func (s *Service) account(ctx context.Context, id string) (Account, error) {
	a, err := s.Keys.Account(ctx, id)
	if err != nil {
		return Account{}, err
	}
	return s.viewAccount(ctx, a)
}

func (s *Service) accounts(ctx context.Context, p apikey.Page) ([]Account, error) {
	list, err := s.Keys.Accounts(ctx, p)
	if err != nil {
		return nil, err
	}
	return viewAll(ctx, list, s.viewAccount)
}

func (s *Service) updateAccount(ctx context.Context, id string, in AccountUpdate) (Account, error) {
	change := apikey.AccountChange{At: s.Now().UTC(), Name: in.Name, Plan: in.Plan, Meta: in.Meta}
	if in.Plan != nil {
		if err := s.checkPlan(*in.Plan); err != nil {
			return Account{}, err
		}
		if *in.Plan == "" && len(s.Plans()) > 0 {
			return Account{}, authz.Errorf(authz.KindInvalid, "an account that had a plan needs one: %s", s.planNames())
		}
	}
	if err := apikey.CheckMeta(in.Meta); err != nil {
		return Account{}, err
	}
	if in.Status != nil {
		status := authz.AccountStatus(*in.Status)
		change.Status = &status
		if err := s.checkResume(ctx, id, status); err != nil {
			return Account{}, err
		}
	}
	a, err := s.Keys.AmendAccount(ctx, id, change)
	if err != nil {
		return Account{}, err
	}
	return s.viewAccount(ctx, a)
}

// revokeAccount revokes every key and token that the account has now. Later ones are not affected.
func (s *Service) revokeAccount(ctx context.Context, id string, in accountRevoke) (Revoked, error) {
	_, err := s.Keys.Account(ctx, id)
	switch missing := authz.KindOf(err) == authz.KindNotFound; {
	case err != nil && !missing:
		return Revoked{}, err
	case missing && !in.Unregistered:
		return Revoked{}, authz.Errorf(authz.KindNotFound, "there is no account %q: if tokens name it, revoke it as unregistered", id)
	}
	now := s.Now().UTC()
	return s.revoke(ctx, revocation.Record{Kind: revocation.KindAccount, Value: id, Before: now, At: now, Cause: in.Cause})
}

func (s *Service) viewAccount(ctx context.Context, a *apikey.Account) (Account, error) {
	out := Account{
		ID: a.ID, Name: a.Name, Plan: a.Plan, Status: string(a.Status), Meta: a.Meta,
		CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt, Version: a.Version,
	}
	r, ok, err := s.Revoked.Get(ctx, revocation.KindAccount, "", a.ID)
	if ok {
		out.RevokedBefore = r.Before
	}
	return out, err
}
