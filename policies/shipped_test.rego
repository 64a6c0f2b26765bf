# Tests of the shipped plans and routes. "tollkeeper policy init" leaves this file out, because the operator's data will
# differ. The other tests hold for any data.
package tollkeeper.shipped_test

import data.tollkeeper.fixtures

# The decision on a request by a key with that plan and those scopes.
decide(method, path, plan, scopes) := decision if {
	caller := {
		"key/plan": plan,
		"key/scopes": scopes,
		"quota": {name: {"state": "ok", "remaining": 10} | some name in ["rate", "daily", "monthly", "credits"]},
	}
	decision := data.envoy.authz.allow with data.tollkeeper.custom as {}
		with input as fixtures.changed(object.union(fixtures.to(method, path), caller))
}

test_reports_need_a_scope if {
	decide("GET", "/v1/reports/7", "free", ["reports:read"]).charge == {"rate": 1, "daily": 1}
	decide("GET", "/v1//reports/7", "free", ["reports:write"]).reason == "permission_denied"
	decide("POST", "/v1/reports", "free", ["reports:write"]).allowed
	decide("DELETE", "/v1/reports/7", "free", ["reports:read"]).reason == "permission_denied"
	decide("HEAD", "/v1/reports/7", "free", ["reports:read"]).reason == "permission_denied"
}

test_rendering_costs_credits if {
	decide("POST", "/v1/render", "payg", []).charge == {"rate": 1, "credits": 5}
	decide("POST", "/v1/render/", "free", []).charge == {"rate": 1, "daily": 1}
	decide("POST", "/v1/render", "pro", []).charge == {"rate": 1, "monthly": 1}
}

test_other_routes_cost_one if {
	decide("GET", "/v1/other", "payg", []).charge == {"rate": 1, "credits": 1}
}

test_nothing_public_ships if {
	every route in data.tollkeeper.routes { object.get(route, "public", false) == false }
	every path in ["/", "/public/logo.png", "/v1/render"] { without_key(path).reason == "key_missing" }
}

without_key(path) := decision if {
	no_key := {"key": {"status": "missing"}, "account": {"status": "unknown"}}
	decision := data.envoy.authz.allow with data.tollkeeper.custom as {}
		with input as fixtures.changed(object.union(fixtures.to("GET", path), no_key))
}
