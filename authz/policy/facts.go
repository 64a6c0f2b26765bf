package policy

import (
	"cmp"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// putFacts adds what is known about the caller. A state that nobody set becomes the one that says "nothing is known",
// so that a policy that compares states never meets an undefined one.
func putFacts(o *object, f *authz.Facts) error {
	if f == nil {
		f = &authz.Facts{}
	}
	if err := putKey(o, &f.Key); err != nil {
		return err
	}
	if err := putAccount(o, &f.Account); err != nil {
		return err
	}
	if err := putToken(o, &f.Token, &f.Key); err != nil {
		return err
	}
	putQuota(o, f.Quota)
	if revocation, ok := o.child("revocation", 1); ok {
		revocation.boolean("stale", f.Revocation.Stale)
		o.putChild("revocation", revocation)
	}
	return nil
}

// putKey adds scopes for every key that was found, even if there are none.
func putKey(o *object, k *authz.KeyFact) error {
	key, ok := o.child("key", 10)
	if !ok {
		return nil
	}
	key.text("status", string(cmp.Or(k.Status, authz.KeyMissing)))
	key.text("id", k.ID)
	key.text("name", k.Name)
	key.text("account", k.Account)
	key.text("environment", k.Environment)
	key.text("plan", k.Plan)
	if k.Found() || len(k.Scopes) > 0 {
		key.list("scopes", k.Scopes)
	}
	key.time("not_before", k.NotBefore)
	key.time("expires_at", k.ExpiresAt)
	err := key.json("meta", k.Meta)
	o.putChild("key", key)
	return err
}

func putAccount(o *object, a *authz.AccountFact) error {
	account, ok := o.child("account", 4)
	if !ok {
		return nil
	}
	account.text("id", a.ID)
	account.text("plan", a.Plan)
	account.text("status", string(cmp.Or(a.Status, authz.AccountUnknown)))
	err := account.json("meta", a.Meta)
	o.putChild("account", account)
	return err
}

func putToken(o *object, t *authz.TokenFact, k *authz.KeyFact) error {
	token, ok := o.child("token", 10)
	if !ok {
		return nil
	}
	token.text("status", string(cmp.Or(t.Status, authz.TokenMissing)))
	token.text("issuer", t.Issuer)
	token.text("id", t.ID)
	token.text("account", t.Account)
	if t.Known() {
		token.boolean("has_account", t.Account != "")
		token.boolean("same_account", t.Accountless || t.Account != "" && t.Account == k.Account)
		if t.Accountless {
			token.boolean("accountless", true)
		}
	}
	token.text("plan", t.Plan)
	if t.Known() || len(t.Scopes) > 0 {
		token.list("scopes", t.Scopes)
	}
	err := token.json("claims", t.Claims)
	o.putChild("token", token)
	return err
}

func putQuota(o *object, quotas []authz.QuotaFact) {
	all, ok := o.child("quota", len(quotas))
	if !ok {
		return
	}
	for i := range quotas {
		q := &quotas[i]
		fact, ok := all.child(q.Name, 4)
		if !ok {
			continue
		}
		fact.text("state", string(cmp.Or(q.State, authz.QuotaUnavailable)))
		fact.integer("limit", q.Limit)
		fact.integer("remaining", q.Remaining)
		fact.time("resets_at", q.ResetsAt)
		all.putChild(q.Name, fact)
	}
	o.putChild("quota", all)
}
