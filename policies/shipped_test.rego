# The shipped plans and routes as they are. Change this file together with plans.yaml and routes.yaml; the tests of
# what is written in them, at its end, hold for any.
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
	nobody := {"key": {"status": "missing"}, "account": {"status": "unknown"}}
	decision := data.envoy.authz.allow with data.tollkeeper.custom as {}
		with input as fixtures.changed(object.union(fixtures.to("GET", path), nobody))
}

test_routes_are_written_well if {
	every route in data.tollkeeper.routes {
		object.keys(route) - {"name", "match", "public", "scopes", "plans", "environment", "key", "token", "charge"} == set()
		object.keys(object.get(route, "match", {})) - {"methods", "hosts", "path"} == set()
		is_boolean(object.get(route, "public", false))
		is_array(object.get(route, "scopes", []))
		is_string(object.get(route, "environment", ""))
		object.get(route, "token", "required") == "required"
		object.get(route, "key", "required") == "required"
		path_written_well(object.get(route, ["match", "path"], "/**"))
		every plan in object.get(route, "plans", []) { data.tollkeeper.plans[plan] }
		every name, units in object.get(route, "charge", {}) {
			data.tollkeeper.plans[_].limits[name]
			units >= 0
		}
	}
}

# ** stands at the end or nowhere, and no segment is empty, or a star with something beside it.
path_written_well(pattern) if regex.match(`^/$|^(/(\*|[^/*]+))*(/\*\*)?$`, pattern)

test_paths_that_are_written_wrongly_are_seen if {
	every pattern in ["v1", "/v1/", "//v1", "/**/v1", "/v1*", "/v1/a*b", "/v1/***"] { not path_written_well(pattern) }
	every pattern in ["/", "/**", "/v1", "/v1/*", "/*/x/**"] { path_written_well(pattern) }
}

test_names_of_routes_are_different if {
	names := [route.name | some route in data.tollkeeper.routes; route.name]
	count(names) == count({name | some name in names})
}

test_plans_are_written_well if {
	every plan in data.tollkeeper.plans {
		every limit in object.get(plan, "limits", {}) {
			object.keys(limit) - {"units", "window", "per", "unit", "zone", "anchor_day", "on_crash"} == set()
			limit.units >= 0
			limit.window in {"second", "minute", "hour", "day", "month", "none"}
			object.get(limit, "per", "key") in {"key", "account"}
			object.get(limit, "on_crash", "forfeit") in {"forfeit", "refund"}
		}
	}
}
