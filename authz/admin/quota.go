package admin

import (
	"context"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// holder is the holder of quotas, and the limits of its plan that apply.
type holder struct {
	authz.Holder
	plan   string
	limits []authz.Limit
}

// holderOf finds the holder. An account alone has only the limits that all its callers share; those per key are left out.
func (s *Service) holderOf(ctx context.Context, in QuotaHolder) (holder, error) {
	bearer := in.Issuer != "" || in.Subject != "" || in.Client != ""
	switch {
	case (in.Key == "") == (in.Account == ""):
		return holder{}, authz.Errorf(authz.KindInvalid, "give either a key or an account")
	case in.Key != "" && (bearer || in.Plan != ""):
		return holder{}, authz.Errorf(authz.KindInvalid, "a key has its own plan, and no issuer, subject or client")
	case bearer && (in.Issuer == "" || (in.Subject == "") == (in.Client == "")):
		return holder{}, authz.Errorf(authz.KindInvalid, "give an issuer with a subject, or with the client of tokens that name no subject")
	case in.Key != "":
		return s.holderOfKey(ctx, in.Key)
	}
	h := holder{Holder: authz.Holder{Account: in.Account}, plan: in.Plan}
	if bearer {
		h.Key = authz.BearerHolder(in.Account, in.Issuer, in.Subject, in.Client)
	}
	if h.plan == "" {
		a, err := s.Keys.Account(ctx, in.Account)
		if authz.KindOf(err) == authz.KindNotFound {
			return holder{}, authz.Errorf(authz.KindNotFound, "there is no account %q: if tokens name it, give the plan that they name", in.Account)
		}
		if err != nil {
			return holder{}, err
		}
		h.plan = a.Plan
	}
	return h, s.limit(&h)
}

func (s *Service) holderOfKey(ctx context.Context, id string) (holder, error) {
	k, err := s.Keys.Key(ctx, id)
	if err != nil {
		return holder{}, err
	}
	h := holder{Holder: authz.Holder{Key: k.Lineage, Account: k.Account}, plan: k.Plan}
	if h.plan == "" {
		a, err := s.Keys.Account(ctx, k.Account)
		if err != nil {
			return holder{}, err
		}
		h.plan = a.Plan
	}
	return h, s.limit(&h)
}

// limit sets the limits of the holder's plan.
func (s *Service) limit(h *holder) error {
	if err := s.checkPlan(h.plan); err != nil {
		return err
	}
	for _, l := range s.Plans()[h.plan] {
		if h.Key != "" || l.Per == authz.PerAccount {
			h.limits = append(h.limits, l)
		}
	}
	return nil
}

// quotas returns the state of every limit of a holder.
func (s *Service) quotas(ctx context.Context, in QuotaHolder) ([]Quota, error) {
	h, err := s.holderOf(ctx, in)
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

// quota returns the state of one limit, after this node has reported to the ledger what it spent.
func (s *Service) quota(ctx context.Context, h holder, l *authz.Limit) (Quota, error) {
	if quota.IsRate(l) {
		return s.rate(ctx, h, l)
	}
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

// rate is the state of a limit per second or minute, which this node counts in memory.
func (s *Service) rate(ctx context.Context, h holder, l *authz.Limit) (Quota, error) {
	f, err := s.Dispenser.Rate(ctx, h.Holder, l)
	if err != nil {
		return Quota{}, err
	}
	return Quota{
		Limit: l.Name, Per: string(l.Per), Holder: quota.HolderOf(l, h.Holder).Holder, Window: string(l.Window), Unit: l.Unit,
		Allowance: f.Limit, Spent: f.Limit - f.Remaining, Remaining: f.Remaining, ResetsAt: f.ResetsAt,
	}, nil
}

func viewBalance(l *authz.Limit, b quota.Balance) Quota {
	out := Quota{
		Limit: l.Name, Per: string(l.Per), Holder: b.Bucket.Holder, Window: string(l.Window), Unit: l.Unit,
		Allowance: b.Allowance, Spent: b.Spent - b.Forgiven, Outstanding: b.Outstanding,
		Stranded: b.Stranded, Overage: b.Overage, ResetsAt: b.Period.End,
	}
	left := b.Allowance + b.Forgiven - (b.Granted - b.Returned) // below 0 if nodes hold more than this plan grants
	for _, held := range b.Outstanding {
		left += held
	}
	out.Remaining = max(0, left)
	return out
}

// credit adds units to a limit.
func (s *Service) credit(ctx context.Context, in QuotaChange) (Quota, error) {
	return s.change(ctx, in, func(b quota.Bucket, l authz.Limit) (quota.Balance, error) {
		return s.Ledger.Credit(ctx, quota.CreditRequest{ID: in.ID, Bucket: b, Limit: l, Units: in.Units, Note: in.Note})
	})
}

// reset forgives what was spent of a limit in the current period.
func (s *Service) reset(ctx context.Context, in QuotaChange) (Quota, error) {
	if in.Units != 0 {
		return Quota{}, authz.Errorf(authz.KindInvalid, "a reset takes no units")
	}
	return s.change(ctx, in, func(b quota.Bucket, l authz.Limit) (quota.Balance, error) {
		return s.Ledger.Reset(ctx, quota.ResetRequest{ID: in.ID, Bucket: b, Limit: l})
	})
}

func (s *Service) change(ctx context.Context, in QuotaChange, do func(quota.Bucket, authz.Limit) (quota.Balance, error)) (Quota, error) {
	h, err := s.holderOf(ctx, in.QuotaHolder)
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
	if quota.IsRate(&l) {
		return Quota{}, authz.Errorf(authz.KindInvalid, "limit %q counts per %s and starts over by itself: nothing is credited or reset", l.Name, l.Window)
	}
	b := quota.BucketOf(&l, h.Holder)
	if err := s.Dispenser.Report(ctx, b, &l); err != nil {
		return Quota{}, err
	}
	if _, err := do(b, l); err != nil {
		return Quota{}, err
	}
	return s.quota(ctx, h, &l) // this also tells the dispenser of the change
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
