# The form of plans and routes, whatever they say.
package tollkeeper.data_test

# Both may be missing.
default routes := []

routes := data.tollkeeper.routes

default plans := {}

plans := data.tollkeeper.plans

test_routes_are_written_well if {
	every route in routes {
		object.keys(route) - {"name", "match", "public", "scopes", "plans", "environment", "key", "token", "charge"} == set()
		object.keys(object.get(route, "match", {})) - {"methods", "hosts", "path"} == set()
		is_boolean(object.get(route, "public", false))
		is_array(object.get(route, "scopes", []))
		is_string(object.get(route, "environment", ""))
		object.get(route, "token", "required") == "required"
		object.get(route, "key", "required") == "required"
		path_written_well(object.get(route, ["match", "path"], "/**"))
		is_array(object.get(route, "plans", []))
		every units in object.get(route, "charge", {}) { units >= 0 }
	}
}

# ** may only be the last segment. No segment is empty, or a star with other characters.
path_written_well(pattern) if regex.match(`^/$|^(/(\*|[^/*]+))*(/\*\*)?$`, pattern)

test_malformed_paths_are_noticed if {
	every pattern in ["v1", "/v1/", "//v1", "/**/v1", "/v1*", "/v1/a*b", "/v1/***"] { not path_written_well(pattern) }
	every pattern in ["/", "/**", "/v1", "/v1/*", "/*/x/**"] { path_written_well(pattern) }
}

test_names_of_routes_are_different if {
	names := [route.name | some route in routes; route.name]
	count(names) == count({name | some name in names})
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
