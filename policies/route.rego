# METADATA
# title: Does a route apply, and what if none does?
# description: >-
#   Tollkeeper finds the route, the entry of routes.yaml that applies, and gives it as input.route. Its fields are read one
#   by one where they matter. A verdict that read all of input.route would depend on the ids in the path, and could not be
#   used again.
# schemas:
#   - input: schema.input
package tollkeeper.route

# public: callers need no key, and are charged nothing.
public if {
	input.route.state == "ok"
	input.route.public == true
}

# free: no route applies, and data.tollkeeper.unmatched says that such requests cost nothing.
free if {
	input.route.state == "none"
	unmatched == "allow"
}

deny contains "route_unknown" if {
	input.route.state == "none"
	unmatched == "deny"
}

# Envoy names a route that does not exist, or the table of routes is not known. Neither may mean "no rules".
deny contains "policy_error" if not state_known

deny contains "policy_error" if not unmatched_known

state_known if input.route.state in {"ok", "none"}

unmatched_known if unmatched in {"charge", "allow", "deny"}

# What happens to requests that no route names.
default unmatched := "charge"

unmatched := data.tollkeeper.unmatched
