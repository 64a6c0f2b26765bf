package input

import (
	"cmp"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// putFacts adds the facts about the request and its caller. A state that is not set becomes the state for "nothing is known", so that
// states are never undefined in policies.
func (o object) putFacts(f *authz.Facts) error {
	if f == nil {
		f = &authz.Facts{}
	}
	o.putReading(&f.Path)
	o.putRoute(&f.Route)
	if err := o.putKey(&f.Key); err != nil {
		return err
	}
	if err := o.putAccount(&f.Account); err != nil {
		return err
	}
	if err := o.putToken(&f.Token, &f.Key); err != nil {
		return err
	}
	o.putQuota(f.Quota)
	if revocation, ok := o.begin("revocation", 1); ok {
		revocation.boolean("stale", f.Revocation.Stale)
		o.end("revocation")
	}
	return nil
}

func (o object) putReading(p *authz.PathFact) {
	if path, ok := o.begin("path", 2); ok {
		path.text("state", string(cmp.Or(p.State, authz.PathMalformed)))
		path.text("fault", string(p.Fault))
		o.end("path")
	}
}

// putRoute adds the route, in the form of an entry of routes.yaml.
func (o object) putRoute(f *authz.RouteFact) {
	route, ok := o.begin("route", 12)
	if !ok {
		return
	}
	route.text("state", string(cmp.Or(f.State, authz.RouteMissing)))
	if r := f.Route; r != nil {
		route.text("name", r.Name)
		route.text("template", r.Template)
		route.someTexts("methods", r.Methods)
		route.someTexts("hosts", r.Hosts)
		if r.Public {
			route.boolean("public", true)
		}
		route.someTexts("scopes", r.Scopes)
		route.someTexts("plans", r.Plans)
		route.text("environment", r.Environment)
		if r.KeyRequired {
			route.text("key", "required")
		}
		if r.TokenRequired {
			route.text("token", "required")
		}
		route.putCharge(r.Charge)
		route.putParams(f.Params)
	}
	o.end("route")
}

func (o object) putCharge(c authz.Charge) {
	if c == nil {
		return
	}
	if charge, ok := o.begin("charge", len(c)); ok {
		for name, units := range inOrder(c, o.out) {
			charge.anyInteger(name, units)
		}
		o.end("charge")
	}
}

func (o object) putParams(list []authz.Param) {
	params, ok := o.begin("params", len(list))
	if !ok {
		return
	}
	for _, p := range list {
		params.anyText(p.Name, p.Value)
	}
	o.end("params")
}

// putKey adds the key. A key that was found always has scopes, perhaps an empty list.
func (o object) putKey(k *authz.KeyFact) error {
	key, ok := o.begin("key", 10)
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
		key.texts("scopes", k.Scopes)
	}
	key.time("not_before", k.NotBefore)
	key.time("expires_at", k.ExpiresAt)
	if err := key.jsonMap("meta", k.Meta); err != nil {
		return err
	}
	o.end("key")
	return nil
}

func (o object) putAccount(a *authz.AccountFact) error {
	account, ok := o.begin("account", 4)
	if !ok {
		return nil
	}
	account.text("id", a.ID)
	account.text("plan", a.Plan)
	account.text("status", string(cmp.Or(a.Status, authz.AccountUnknown)))
	if err := account.jsonMap("meta", a.Meta); err != nil {
		return err
	}
	o.end("account")
	return nil
}

func (o object) putToken(t *authz.TokenFact, k *authz.KeyFact) error {
	token, ok := o.begin("token", 10)
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
		token.texts("scopes", t.Scopes)
	}
	if err := token.jsonMap("claims", t.Claims); err != nil {
		return err
	}
	o.end("token")
	return nil
}

func (o object) putQuota(quotas []authz.QuotaFact) {
	all, ok := o.begin("quota", len(quotas))
	if !ok {
		return
	}
	for i := range quotas {
		q := &quotas[i]
		fact, ok := all.begin(q.Name, 4)
		if !ok {
			continue
		}
		fact.text("state", string(cmp.Or(q.State, authz.QuotaUnavailable)))
		fact.anyInteger("limit", q.Limit)
		fact.anyInteger("remaining", q.Remaining)
		fact.time("resets_at", q.ResetsAt)
		all.end(q.Name)
	}
	o.end("quota")
}
