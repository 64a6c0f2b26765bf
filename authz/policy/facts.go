package policy

import (
	"cmp"

	"github.com/open-policy-agent/opa/v1/ast"
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
	if err := putToken(o, &f.Token); err != nil {
		return err
	}
	putQuota(o, f.Quota)
	revocation := newObject(o.reads.field("revocation"), 1)
	revocation.put("stale", ast.Boolean(f.Revocation.Stale))
	o.put("revocation", revocation.value())
	return nil
}

// putKey adds scopes for every key that was found, even if there are none.
func putKey(o *object, k *authz.KeyFact) error {
	w := o.reads.field("key")
	if w == nil {
		return nil
	}
	key := newObject(w, 10)
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
	o.put("key", key.value())
	return err
}

func putAccount(o *object, a *authz.AccountFact) error {
	w := o.reads.field("account")
	if w == nil {
		return nil
	}
	account := newObject(w, 4)
	account.text("id", a.ID)
	account.text("plan", a.Plan)
	account.text("status", string(cmp.Or(a.Status, authz.AccountUnknown)))
	err := account.json("meta", a.Meta)
	o.put("account", account.value())
	return err
}

func putToken(o *object, t *authz.TokenFact) error {
	w := o.reads.field("token")
	if w == nil {
		return nil
	}
	token := newObject(w, 7)
	token.text("status", string(cmp.Or(t.Status, authz.TokenMissing)))
	token.text("issuer", t.Issuer)
	token.text("id", t.ID)
	token.text("account", t.Account)
	token.text("plan", t.Plan)
	if t.Known() || len(t.Scopes) > 0 {
		token.list("scopes", t.Scopes)
	}
	err := token.json("claims", t.Claims)
	o.put("token", token.value())
	return err
}

func putQuota(o *object, quotas []authz.QuotaFact) {
	w := o.reads.field("quota")
	if w == nil {
		return
	}
	all := newObject(w, len(quotas))
	for i := range quotas {
		q := &quotas[i]
		fact := newObject(w.field(q.Name), 4)
		fact.text("state", string(cmp.Or(q.State, authz.QuotaUnavailable)))
		fact.put("limit", integer(q.Limit))
		fact.put("remaining", integer(q.Remaining))
		fact.time("resets_at", q.ResetsAt)
		all.put(q.Name, fact.value())
	}
	o.put("quota", all.value())
}
