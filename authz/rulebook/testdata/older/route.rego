# METADATA
# title: Which entry of routes.yaml applies?
# description: >-
#   The first entry of data.tollkeeper.routes that fits, or the entry that Envoy names in the context extension
#   "tollkeeper.route".
# schemas:
#   - input: schema.input
package tollkeeper.route

import data.tollkeeper.form

# rule is the entry that applies. If none does, the route is not public and needs nothing but a good key.
rule := data.tollkeeper.routes[min(fitting)] if {
	not name
} else := named[0] if {
	name
} else := {}

public if rule.public == true

# A name without an entry must not mean "no rules": the operator who named the route meant its rules.
deny contains "policy_error" if {
	name
	count(named) == 0
}

name := input.attributes.contextExtensions["tollkeeper.route"]

named := [entry | some entry in data.tollkeeper.routes; entry.name == name]

# Most patterns have no star, or only as their last segment. They are looked up in the set of patterns that fit.
fitting contains i if {
	some i, entry in data.tollkeeper.routes
	patterns[entry.match.path]
	method_fits(entry.match)
	host_fits(entry.match)
}

# Other patterns are compared segment by segment.
fitting contains i if {
	some i, entry in data.tollkeeper.routes
	contains(entry.match.path, "*/")
	segments_fit(split(trim_prefix(entry.match.path, "/"), "/"))
	method_fits(entry.match)
	host_fits(entry.match)
}

method_fits(match) if {
	method := input.attributes.request.http.method
	method in object.get(match, "methods", [method])
}

host_fits(match) if not match.hosts

host_fits(match) if {
	some host in match.hosts
	lower(host) == asked_host
}

# The host without its port and without the dot that ends a fully qualified name.
asked_host := lower(regex.replace(input.attributes.request.http.host, `\.?(:[0-9]*)?$`, ""))

# The patterns that fit the path, except those with a star between other segments. For /v1/render these are /v1/render,
# /v1/*, /**, /v1/** and /v1/render/**. This is one value: a partial rule would be evaluated again for every route.
patterns := {path, trim_suffix(path, "/"), regex.replace(path, `[^/]+/$`, "*")} | {pattern |
	some slash in indexof_n(path, "/")
	pattern := concat("/", [substring(path, 0, slash), "**"])
}

# The decoded path with one slash before, between and after its segments. Many servers serve /v1//render and /v1/render/
# as /v1/render, so an extra slash must not escape a rule.
path := regex.replace(concat("", ["/", form.path, "/"]), `/{2,}`, "/")

segments := split(trim(path, "/"), "/")

segments_fit(wanted) if {
	count(wanted) == count(segments)
	every i, want in wanted { want in {"*", segments[i]} }
}

segments_fit(wanted) if {
	last := count(wanted) - 1
	wanted[last] == "**"
	every i, want in array.slice(wanted, 0, last) { want in {"*", segments[i]} }
}
