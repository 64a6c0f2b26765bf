package apikey

import (
	"cmp"
	"context"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Identifier turns key texts into facts.
type Identifier struct {
	store  Store
	hasher Hasher
}

// NewIdentifier makes an identifier over a store whose digests that hasher makes.
func NewIdentifier(s Store, h Hasher) *Identifier { return &Identifier{store: s, hasher: h} }

// Identify returns what is known about a key text at that instant. A text that cannot be a key is not looked up. If the store
// cannot answer, the key is unavailable and not unknown: a caller is never told that a good key is bad.
func (i *Identifier) Identify(ctx context.Context, text string, now time.Time) (authz.KeyFact, authz.AccountFact) {
	unknown := authz.AccountFact{Status: authz.AccountUnknown}
	if !WellFormed(text) {
		return authz.KeyFact{Status: authz.KeyMalformed}, unknown
	}
	k, err := i.store.Find(ctx, i.hasher.Text(text))
	if err != nil {
		if authz.KindOf(err) == authz.KindNotFound {
			return authz.KeyFact{Status: authz.KeyUnknown}, unknown
		}
		return authz.KeyFact{Status: authz.KeyUnavailable}, unknown
	}
	return i.factsOf(ctx, k, now)
}

// factsOf returns what is known about a key.
func (i *Identifier) factsOf(ctx context.Context, k *Key, now time.Time) (authz.KeyFact, authz.AccountFact) {
	unknown := authz.AccountFact{Status: authz.AccountUnknown}
	account := i.Account(ctx, k.Account)
	if account.Status == authz.AccountUnavailable {
		return authz.KeyFact{Status: authz.KeyUnavailable}, unknown
	}
	fact := authz.KeyFact{
		Status: k.StatusAt(now), ID: k.ID, Name: k.Name, Account: k.Account, Environment: k.Environment,
		Plan: cmp.Or(k.Plan, account.Plan), Scopes: k.Scopes, NotBefore: k.NotBefore, ExpiresAt: k.ExpiresAt,
		Meta: k.Meta, CreatedAt: k.CreatedAt, Lineage: k.Lineage,
	}
	if end := k.OverlapEnds; k.Successor != "" && (fact.ExpiresAt.IsZero() || end.Before(fact.ExpiresAt)) {
		fact.ExpiresAt = end
	}
	return fact, account
}

// MayBeKey reports whether a text is a key of any account, or was meant to be a key of our own form, and so must not be shown
// to others. The error says that the store cannot tell.
func (i *Identifier) MayBeKey(ctx context.Context, text string) (bool, error) {
	if !WellFormed(text) {
		return IsOurs(text), nil
	}
	_, err := i.store.Find(ctx, i.hasher.Text(text))
	switch {
	case err == nil:
		return true, nil
	case authz.KindOf(err) == authz.KindNotFound:
		return IsOurs(text), nil
	}
	return false, err
}

// Only is an Identifier that also takes the id of one key for that key: for operators, who do not know its text.
type Only struct {
	*Identifier
	Key *Key
}

// Identify returns what is known about the key.
func (o Only) Identify(ctx context.Context, text string, now time.Time) (authz.KeyFact, authz.AccountFact) {
	if text != o.Key.ID {
		return o.Identifier.Identify(ctx, text, now)
	}
	return o.factsOf(ctx, o.Key, now)
}

// Account returns what is known about an account. It does not fail: that the store cannot answer is a status.
func (i *Identifier) Account(ctx context.Context, id string) authz.AccountFact {
	a, err := i.store.Account(ctx, id)
	switch {
	case err == nil:
		return authz.AccountFact{ID: a.ID, Plan: a.Plan, Status: a.Status, Meta: a.Meta}
	case authz.KindOf(err) == authz.KindNotFound:
		return authz.AccountFact{Status: authz.AccountUnknown}
	}
	return authz.AccountFact{Status: authz.AccountUnavailable}
}
