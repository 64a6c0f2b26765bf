# The form of plans and routes, whatever they say. "tollkeeper policy check" finds all of this and more, with file and line.
# These tests are for those who only have opa.
package tollkeeper.data_test

# All may be missing.
default routes := []

routes := data.tollkeeper.routes

default plans := {}

plans := data.tollkeeper.plans

default paths := {}

paths := data.tollkeeper.paths

default unmatched := "charge"

unmatched := data.tollkeeper.unmatched

test_routes_are_written_well if {
	every route in routes { route_written_well(route) }
}

route_written_well(route) if {
	object.keys(route) - {"name", "match", "public", "scopes", "plans", "environment", "key", "token", "charge"} == set()
	object.keys(object.get(route, "match", {})) - {"methods", "hosts", "path"} == set()
	startswith(object.get(route, ["match", "path"], "/"), "/")
	is_boolean(object.get(route, "public", false))
	is_array(object.get(route, "scopes", []))
	is_string(object.get(route, "environment", ""))
	object.get(route, "token", "required") == "required"
	object.get(route, "key", "required") == "required"
	is_array(object.get(route, "plans", []))
	every plan in object.get(route, "plans", []) { plans[plan] }
	every units in object.get(route, "charge", {}) { units >= 0 }
}

# The operations of an OpenAPI document.
route_written_well(route) if {
	object.keys(route) - {"openapi", "match"} == set()
	object.keys(object.get(route, "match", {})) - {"hosts"} == set()
	is_string(route.openapi)
}

test_names_of_routes_are_different if {
	names := [route.name | some route in routes; route.name]
	count(names) == count({name | some name in names})
}

test_paths_and_unmatched_are_written_well if {
	unmatched in {"charge", "allow", "deny"}
	every setting, value in paths {
		value in {
			"matrix": {"refuse", "strip", "keep"},
			"case": {"fold", "exact"},
			"encoded_slash": {"refuse", "keep"},
			"repeated_slash": {"merge", "refuse", "keep"},
			"trailing_slash": {"ignore", "exact"},
			"extension": {"exact", "ignore"},
		}[setting]
	}
}

test_misspelt_routes_are_noticed if {
	every route in [{"scope": ["admin"]}, {"match": {"path": "v1"}}, {"match": {"methds": []}}, {"token": true}, {"openapi": "a.yaml", "public": true}] {
		not route_written_well(route)
	}
	every route in [{}, {"match": {"path": "/v1/{id}"}, "public": true}, {"openapi": "a.yaml", "match": {"hosts": ["a.example"]}}] {
		route_written_well(route)
	}
}

test_plans_are_written_well if {
	every plan in plans {
		every limit in object.get(plan, "limits", {}) {
			object.keys(limit) - {"units", "window", "per", "unit", "zone", "anchor_day", "on_crash"} == set()
			limit.units >= 0
			limit.window in {"second", "minute", "hour", "day", "month", "none"}
			object.get(limit, "per", "key") in {"key", "account"}
			object.get(limit, "on_crash", "forfeit") in {"forfeit", "refund"}
		}
	}
}
