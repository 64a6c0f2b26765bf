# Fixtures of the tests: data of their own, so that the tests hold whatever an operator writes into plans.yaml, routes.yaml
# and custom rules, and a good request, which is allowed.
package tollkeeper.fixtures

# decide is the decision on the good request after some changes: values by JSON pointer without its first slash.
decide(changes) := decide_in(world, changes)

decide_in(place, changes) := decision if {
	decision := data.envoy.authz.allow with input as changed(changes)
		with data.tollkeeper.plans as place.plans
		with data.tollkeeper.routes as place.routes
		with data.tollkeeper.custom as {"deny": place.custom}
		with data.tollkeeper.environment as place.environment
		with data.tollkeeper.profile as place.profile
}

changed(changes) := json.patch(good, [op |
	some path, value in changes
	op := {"op": "add", "path": concat("/", ["", path]), "value": value}
])

with_custom(objections) := object.union(world, {"custom": objections})

with_routes(routes) := object.union(world, {"routes": routes})

# to changes the method and path of the request.
to(method, path) := {
	"attributes/request/http/method": method,
	"attributes/request/http/path": path,
	"parsed_path": split(trim_left(path, "/"), "/"),
}

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
	"routes": [
		{"name": "open", "match": {"path": "/open/**"}, "public": true},
		{
			"name": "all",
			"match": {"methods": ["GET"], "path": "/v1/all", "hosts": ["API.example.com"]},
			"scopes": ["read", "list"],
			"plans": ["pro", "team"],
			"environment": "live",
			"token": "required",
			"charge": {"rate": 1, "daily": 1, "credits": 5},
		},
		{"name": "by-name-only", "charge": {"tokens": 70}},
	],
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
