# Fixtures of the tests: data of their own, so that the tests hold whatever an operator writes into plans.yaml, routes.yaml
# and custom rules, and a good request, which is allowed. Which route applies is a fact of the input, as is the reading of
# the path: Tollkeeper finds both.
package tollkeeper.fixtures

# decide is the decision on the good request after some changes: values by JSON pointer without its first slash.
decide(changes) := decide_in(world, changes)

decide_in(place, changes) := decision if {
	decision := data.envoy.authz.allow with input as changed(changes)
		with data.tollkeeper.plans as place.plans
		with data.tollkeeper.unmatched as place.unmatched
		with data.tollkeeper.custom as {"deny": place.custom}
		with data.tollkeeper.environment as place.environment
		with data.tollkeeper.profile as place.profile
}

changed(changes) := json.patch(good, [op |
	some path, value in changes
	op := {"op": "add", "path": concat("/", ["", path]), "value": value}
])

with_custom(objections) := object.union(world, {"custom": objections})

with_unmatched(value) := object.union(world, {"unmatched": value})

# on changes the route that applies.
on(route) := {"route": object.union({"state": "ok", "name": "it", "template": "/**", "params": {}}, route)}

# on_public is a route that callers need no key for.
on_public := on({"public": true})

# on_none: no route applies.
on_none := {"route": {"state": "none"}}

world := {
	"plans": {
		"pro": {"limits": {
			"rate": {"units": 10, "window": "minute"},
			"daily": {"units": 100, "window": "day"},
			"credits": {"units": 0, "window": "none", "per": "account"},
			"tokens": {"units": 9000, "window": "hour", "unit": "tokens"},
		}},
		"free": {"limits": {
			"rate": {"units": 1, "window": "second"},
			"daily": {"units": 5, "window": "month"},
		}},
		"bare": {},
	},
	"unmatched": "charge",
	"custom": set(),
	"environment": "live",
	"profile": "strict",
}

good := {
	"version": {"ext_authz": "v3", "encoding": "protojson"},
	"attributes": {
		"request": {"http": {
			"method": "GET",
			"path": "/v1/all?x=1",
			"host": "api.example.com:8443",
			"headers": {},
		}},
		"contextExtensions": {},
	},
	"parsed_path": ["v1", "all"],
	"parsed_query": {"x": ["1"]},
	"path": {"state": "ok"},
	"route": {
		"state": "ok",
		"name": "all",
		"template": "/{version}/all",
		"methods": ["GET"],
		"hosts": ["api.example.com"],
		"scopes": ["read", "list"],
		"plans": ["pro", "team"],
		"environment": "live",
		"token": "required",
		"charge": {"rate": 1, "daily": 1, "credits": 5},
		"params": {"version": "v1"},
	},
	"key": {
		"status": "active",
		"id": "k1",
		"account": "acme",
		"environment": "live",
		"plan": "pro",
		"scopes": ["list", "read", "write"],
		"meta": {},
	},
	"account": {"id": "acme", "plan": "pro", "status": "active", "meta": {}},
	"token": {"status": "valid", "has_account": false, "same_account": true, "claims": {}},
	"quota": {
		"rate": {"state": "ok", "limit": 10, "remaining": 9},
		"daily": {"state": "ok", "limit": 100, "remaining": 99},
		"credits": {"state": "ok", "limit": 50, "remaining": 50},
		"tokens": {"state": "ok", "limit": 9000, "remaining": 9000},
	},
	"revocation": {"stale": false},
}

past := "2001-02-03T04:05:06Z"

future := "2201-02-03T04:05:06+01:00"
