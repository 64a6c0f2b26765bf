package admin

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// holder is who is counted, and the limits that apply.
type holder struct {
	authz.Holder
	plan   string
	limits []authz.Limit
}

// holderOf finds the holder for a key's id or an account's. For an account only the limits that its keys share are
// counted, so those per key are left out.
func (s *Service) holderOf(ctx context.Context, keyID, accountID string) (holder, error) {
	if (keyID == "") == (accountID == "") {
		return holder{}, authz.Errorf(authz.KindInvalid, "give either a key or an account")
	}
	var h holder
	if keyID != "" {
		k, err := s.Keys.Key(ctx, keyID)
		if err != nil {
			return holder{}, err
		}
		h.Key, accountID, h.plan = k.Lineage, k.Account, k.Plan
	}
	a, err := s.Keys.Account(ctx, accountID)
	if err != nil {
		return holder{}, err
	}
	h.Account, h.plan = a.ID, cmp.Or(h.plan, a.Plan)
	for _, l := range s.Plans()[h.plan] {
		if h.Key != "" || l.Per == authz.PerAccount {
			h.limits = append(h.limits, l)
		}
	}
	return h, nil
}

// quotas reports every limit of a key or an account.
func (s *Service) quotas(ctx context.Context, keyID, accountID string) ([]Quota, error) {
	h, err := s.holderOf(ctx, keyID, accountID)
	if err != nil {
		return nil, err
	}
	out := make([]Quota, len(h.limits))
	for i := range h.limits {
		if out[i], err = s.quota(ctx, h, &h.limits[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// quota reports one limit, after this node has told the ledger what it spent.
func (s *Service) quota(ctx context.Context, h holder, l *authz.Limit) (Quota, error) {
	b := quota.BucketOf(l, h.Holder)
	if err := s.Dispenser.Report(ctx, b, l); err != nil {
		return Quota{}, err
	}
	balance, err := s.Ledger.Balance(ctx, b, *l)
	if err != nil {
		return Quota{}, err
	}
	return viewBalance(l, balance), nil
}

func viewBalance(l *authz.Limit, b quota.Balance) Quota {
	out := Quota{
		Limit: l.Name, Per: string(l.Per), Holder: b.Bucket.Holder, Window: string(l.Window), Unit: l.Unit,
		Allowance: b.Allowance, Spent: b.Spent - b.Forgiven, Remaining: b.Free, Outstanding: b.Outstanding,
		Stranded: b.Stranded, Excess: b.Excess, ResetsAt: b.Period.End,
	}
	for _, held := range b.Outstanding {
		out.Remaining += held
	}
	return out
}

// credit adds units to a limit.
func (s *Service) credit(ctx context.Context, in QuotaChange) (Quota, error) {
	return s.change(ctx, in, func(b quota.Bucket, l authz.Limit) (quota.Balance, error) {
		return s.Ledger.Credit(ctx, quota.CreditRequest{ID: in.ID, Bucket: b, Limit: l, Units: in.Units, Note: in.Note})
	})
}

// reset forgives what was spent of a limit in the period that is running.
func (s *Service) reset(ctx context.Context, in QuotaChange) (Quota, error) {
	if in.Units != 0 {
		return Quota{}, authz.Errorf(authz.KindInvalid, "a reset takes no units")
	}
	return s.change(ctx, in, func(b quota.Bucket, l authz.Limit) (quota.Balance, error) {
		return s.Ledger.Reset(ctx, quota.ResetRequest{ID: in.ID, Bucket: b, Limit: l})
	})
}

func (s *Service) change(ctx context.Context, in QuotaChange, do func(quota.Bucket, authz.Limit) (quota.Balance, error)) (Quota, error) {
	h, err := s.holderOf(ctx, in.Key, in.Account)
	if err != nil {
		return Quota{}, err
	}
	if in.ID == "" {
		return Quota{}, authz.Errorf(authz.KindInvalid, "give an id, so that asking twice does not change twice")
	}
	i := slices.IndexFunc(h.limits, func(l authz.Limit) bool { return l.Name == in.Limit })
	if i < 0 {
		return Quota{}, authz.Errorf(authz.KindNotFound, "plan %q has no limit %q that can be changed for this holder: it has %s",
			h.plan, in.Limit, limitNames(h.limits))
	}
	l := h.limits[i]
	b := quota.BucketOf(&l, h.Holder)
	if err := s.Dispenser.Report(ctx, b, &l); err != nil {
		return Quota{}, err
	}
	if _, err := do(b, l); err != nil {
		return Quota{}, err
	}
	return s.quota(ctx, h, &l) // and the dispenser learns of the change
}

func limitNames(limits []authz.Limit) string {
	if len(limits) == 0 {
		return "none"
	}
	names := make([]string, len(limits))
	for i, l := range limits {
		names[i] = l.Name
	}
	return strings.Join(names, ", ")
}

func asImportError(err error) (*apikey.ImportError, bool) {
	var e *apikey.ImportError
	ok := errors.As(err, &e)
	return e, ok
}
