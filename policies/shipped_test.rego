# Tests of the shipped plans and routes. "tollkeeper policy init" leaves this file out, because the operator's data will
# differ. The other tests hold for any data.
package tollkeeper.shipped_test

import data.tollkeeper.fixtures

# The decision on a request by a key with that plan and those scopes. Which requests a route names is Tollkeeper's work, so
# the route is looked up by its name; "" is none.
decide(name, plan, scopes) := decision if {
	caller := {
		"key/plan": plan,
		"key/scopes": scopes,
		"quota": {name: {"state": "ok", "remaining": 10} | some name in ["rate", "daily", "monthly", "credits"]},
	}
	decision := data.envoy.authz.allow with data.tollkeeper.custom as {}
		with input as fixtures.changed(object.union(on(name), caller))
}

on("") := fixtures.on_none

on(name) := fixtures.on(object.remove(entry, ["match"])) if {
	some entry in data.tollkeeper.routes
	entry.name == name
}

test_reports_need_a_scope if {
	decide("read-reports", "free", ["reports:read"]).charge == {"rate": 1, "daily": 1}
	decide("read-reports", "free", ["reports:write"]).reason == "permission_denied"
	decide("write-reports", "free", ["reports:write"]).allowed
	decide("write-reports", "free", ["reports:read"]).reason == "permission_denied"
}

test_rendering_costs_credits if {
	decide("render", "payg", []).charge == {"rate": 1, "credits": 5}
	decide("render", "free", []).charge == {"rate": 1, "daily": 1}
	decide("render", "pro", []).charge == {"rate": 1, "monthly": 1}
}

test_other_requests_cost_one if {
	decide("", "payg", []).charge == {"rate": 1, "credits": 1}
}

test_nothing_public_ships if {
	every route in data.tollkeeper.routes { object.get(route, "public", false) == false }
	every name in ["", "read-reports", "write-reports", "render"] { without_key(name).reason == "key_missing" }
}

without_key(name) := decision if {
	no_key := {"key": {"status": "missing"}, "account": {"status": "unknown"}}
	decision := data.envoy.authz.allow with data.tollkeeper.custom as {}
		with input as fixtures.changed(object.union(on(name), no_key))
}

test_the_settings_are_the_defaults if {
	data.tollkeeper.unmatched == "charge"
	data.tollkeeper.paths == {
		"matrix": "refuse",
		"case": "fold",
		"encoded_slash": "refuse",
		"repeated_slash": "merge",
		"trailing_slash": "ignore",
		"extension": "exact",
	}
}
