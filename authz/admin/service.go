// Package admin is the HTTP API for operators: accounts, keys, revocations, quotas and explanations. Whoever can call
// it can do everything, so it is served on a port of its own and never without the admin token.
package admin

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// Service is what the API does, without HTTP. Its methods may be called concurrently.
type Service struct {
	Keys        apikey.Store
	Hasher      apikey.Hasher
	Revocations *revocation.Set
	Revoked     revocation.Store
	Tokens      Tokens   // nil where none are understood
	Issuers     []string // of the tokens
	Signers     []string // those of them of whose tokens it is known which key signed them
	// RevocationTTL is how long a revocation of tokens issued until now must be kept.
	RevocationTTL time.Duration
	// Skew is by how much the clocks of issuers may be ahead of ours.
	Skew   time.Duration
	Ledger quota.Ledger
	// Dispenser has this node report what it spent of a bucket to the ledger.
	Dispenser interface {
		Report(ctx context.Context, b quota.Bucket, l *authz.Limit) error
	}
	Plans  func() map[string][]authz.Limit
	Status func(ctx context.Context) Status
	// PlanUses says who is on which plan. It looks at everything there is.
	PlanUses func(ctx context.Context) (Plans, error)
	// Explain decides a request that is described.
	Explain func(ctx context.Context, q Question) (check.Explanation, error)
	// Decision finds a recent decision by its id or by the x-request-id of its request.
	Decision func(ctx context.Context, id string) (Decision, bool)
	// CheckLedger looks over the data file. The error says why it could not be looked at.
	CheckLedger func(ctx context.Context) (doctor.Report, error)
	Now         func() time.Time
}

const defaultEnvironment = "live"

// createAccount makes an account.
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

// revokeAccount cuts off every key and token that the account has now. Those that are made later are good.
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

// createKey makes a key. Its text is in the answer and nowhere else.
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

// checkKey refuses a key that could never work as it is meant to.
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

// checkPlan refuses a plan that nobody has defined. Where policies come without plans, any name will do.
func (s *Service) checkPlan(name string) error {
	if _, ok := s.Plans()[name]; ok || name == "" || len(s.Plans()) == 0 {
		return nil
	}
	return authz.Errorf(authz.KindInvalid, "there is no plan %q: the plans are %s", name, s.planNames())
}

func (s *Service) planNames() string {
	return strings.Join(slices.Sorted(maps.Keys(s.Plans())), ", ")
}

func (s *Service) key(ctx context.Context, id string) (Key, error) {
	k, err := s.Keys.Key(ctx, id)
	if err != nil {
		return Key{}, err
	}
	return s.viewKey(ctx, k)
}

// lookup finds a key by the SHA-256 of its text, so that the text itself does not travel.
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

// rotateKey makes a successor. Both are good until the overlap ends.
func (s *Service) rotateKey(ctx context.Context, id string, overlap time.Duration) (Rotation, error) {
	if overlap < 0 {
		return Rotation{}, authz.Errorf(authz.KindInvalid, "overlap %v: want 0 or more", overlap)
	}
	k, err := s.Keys.Key(ctx, id)
	if err != nil {
		return Rotation{}, err
	}
	now := s.Now().UTC() // before the look at the revocations: one of the account in between takes the successor too
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

func (s *Service) revoke(ctx context.Context, r revocation.Record) (Revoked, error) {
	stored, err := s.Revocations.Revoke(ctx, r)
	if err != nil {
		return Revoked{}, err
	}
	return Revoked{Kind: string(stored.Kind), ID: stored.Value, At: stored.At, Revision: stored.Revision}, nil
}

// importKeys adds a batch, all or none. Keys that have expired are added only if that is meant.
func (s *Service) importKeys(ctx context.Context, in []ImportKey, force bool) (ImportResult, error) {
	var out ImportResult
	now := s.Now().UTC()
	keys := make([]apikey.Key, len(in))
	for i, k := range in {
		var err error
		if keys[i], err = s.importedKey(ctx, k, now); err == nil {
			if err = s.checkEnd(k.ExpiresAt, force); err != nil {
				if _, there := s.Keys.Find(ctx, keys[i].Digest); there == nil {
					err = nil // it was imported before, and has expired since
				}
			}
		}
		if err != nil {
			out.Faults = append(out.Faults, ImportFault{Index: i, Text: err.Error()})
		}
	}
	if len(out.Faults) > 0 {
		return out, nil
	}
	done, err := s.Keys.Import(ctx, keys)
	if refused, ok := asImportError(err); ok {
		for _, f := range refused.Faults {
			out.Faults = append(out.Faults, ImportFault{Index: f.Index, Text: f.Text})
		}
		return out, nil
	}
	return ImportResult{Created: done.Created, Unchanged: done.Unchanged, Accounts: done.Accounts}, err
}

func (s *Service) importedKey(ctx context.Context, in ImportKey, now time.Time) (apikey.Key, error) {
	d, err := s.digest(in.SHA256)
	if err != nil {
		return apikey.Key{}, err
	}
	if err := apikey.CheckAccountID(in.Account); err != nil {
		return apikey.Key{}, err
	}
	k := apikey.Key{
		ID: apikey.NewID("key"), Name: in.Name, Account: in.Account, Plan: in.Plan,
		Environment: cmp.Or(in.Environment, defaultEnvironment), Scopes: in.Scopes, NotBefore: in.NotBefore,
		ExpiresAt: in.ExpiresAt, Meta: in.Meta, CreatedAt: now, UpdatedAt: now, Version: 1, Digest: d,
	}
	k.Lineage = k.ID
	accountPlan := ""
	if a, err := s.Keys.Account(ctx, in.Account); err == nil {
		accountPlan = a.Plan
	}
	if err := apikey.CheckMeta(k.Meta); err != nil {
		return apikey.Key{}, err
	}
	return k, s.checkKey(&k, accountPlan)
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

func viewAll[T, V any](ctx context.Context, list []*T, view func(context.Context, *T) (V, error)) ([]V, error) {
	out := make([]V, len(list))
	for i := range list {
		var err error
		if out[i], err = view(ctx, list[i]); err != nil {
			return nil, fmt.Errorf("listing: %w", err)
		}
	}
	return out, nil
}
