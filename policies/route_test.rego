# Which entry of routes.yaml applies, and which paths are refused.
package tollkeeper.route_test

import data.tollkeeper.fixtures

# The name of the route for a path, "" for none.
chosen(routes, changes) := object.get(rule, "name", "") if {
	rule := data.tollkeeper.route.rule with data.tollkeeper.routes as routes with input as fixtures.changed(changes)
}

fits(pattern, path) if chosen([{"name": "it", "match": {"path": pattern}}], fixtures.to("GET", path)) == "it"

test_patterns_fit if {
	every pair in [
		["/", "/"],
		["/**", "/"],
		["/**", "/a/b"],
		["/a", "/a"],
		["/a/**", "/a"],
		["/a/**", "/a/b"],
		["/a/**", "/a/b/c"],
		["/a/*", "/a/b"],
		["/*", "/a"],
		["/*/b", "/a/b"],
		["/a/*/c", "/a/b/c"],
		["/a/*/**", "/a/b"],
		["/a/*/**", "/a/b/c/d"],
		["/a/*/c/**", "/a/b/c"],
		["/*/*", "/a/b"],
		["/a/b", "//a/b"],
		["/a/b", "/a//b"],
		["/a/b", "/a/b/"],
		["/a/b", "///a///b///"],
		["/a/*/c", "/a//b//c/"],
		["/a/*", "/a/*"],
		["/ü", "/ü"],
	] {
		fits(pair[0], pair[1])
	}
}

test_patterns_do_not_fit if {
	every pair in [
		["/", "/a"],
		["/a", "/"],
		["/a", "/A"],
		["/a", "/ab"],
		["/a", "/a/b"],
		["/a/**", "/ab"],
		["/a/**", "/"],
		["/a/**", "/b/a"],
		["/a/*", "/a"],
		["/a/*", "/a/"],
		["/a/*", "/a//"],
		["/a/*", "/a/b/c"],
		["/a*", "/ab"],
		["/a/b*", "/a/bc"],
		["/a/*/c", "/a/b/d"],
		["/a/*/c", "/a/c"],
		["/a/*/**", "/a"],
		["/a/*/c/**", "/a/b/d"],
		["/a/**/c", "/a/b/c"],
		["/**/c", "/a/c"],
		["/a/*", "/a/**/b"],
		["a", "/a"],
		["/.*", "/a"],
		["/[a]", "/a"],
		["/?", "/a"],
	] {
		not fits(pair[0], pair[1])
	}
}

test_the_first_route_that_fits_counts if {
	routes := [
		{"name": "one", "match": {"path": "/a/b"}},
		{"name": "two", "match": {"path": "/a/*"}},
		{"name": "three", "match": {"path": "/a/**"}},
		{"name": "again", "match": {"path": "/a/b"}},
	]
	chosen(routes, fixtures.to("GET", "/a/b")) == "one"
	chosen(routes, fixtures.to("GET", "/a/c")) == "two"
	chosen(routes, fixtures.to("GET", "/a/c/d")) == "three"
	chosen(routes, fixtures.to("GET", "/b")) == ""
}

test_the_tenth_route_comes_after_the_second if {
	routes := array.concat(
		[{"match": {"path": "/elsewhere"}} | some _ in numbers.range(1, 2)],
		[{"name": sprintf("r%d", [i]), "match": {"path": "/a"}} | some i in numbers.range(2, 12)],
	)
	chosen(routes, fixtures.to("GET", "/a")) == "r2"
}

test_methods_are_told_apart if {
	routes := [{"name": "read", "match": {"methods": ["GET", "HEAD"], "path": "/a"}}, {"name": "else", "match": {"path": "/a"}}]
	chosen(routes, fixtures.to("HEAD", "/a")) == "read"
	chosen(routes, fixtures.to("POST", "/a")) == "else"
	chosen(routes, fixtures.to("get", "/a")) == "else"
}

test_hosts_are_told_apart_without_port_and_case if {
	routes := [{"name": "it", "match": {"path": "/**", "hosts": ["Api.Example.com", "[::1]", "10.0.0.1"]}}]
	every host in ["api.example.com", "API.EXAMPLE.COM:8443", "api.example.com.", "api.example.com.:80", "[::1]", "[::1]:80", "10.0.0.1:1"] {
		chosen(routes, {"attributes/request/http/host": host}) == "it"
	}
	every host in ["", "example.com", "x.api.example.com", "api.example.com:80.evil.com", "10.0.0.11", "::1"] {
		chosen(routes, {"attributes/request/http/host": host}) == ""
	}
}

test_a_request_without_host_is_on_no_host if {
	rule := data.tollkeeper.route.rule with data.tollkeeper.routes as [{"match": {"path": "/**", "hosts": [""]}, "public": true}]
		with input as json.remove(fixtures.good, ["attributes/request/http/host"])
	rule == {}
}

test_envoy_can_choose_by_name if {
	chosen(fixtures.world.routes, {"attributes/contextExtensions": {"tollkeeper.route": "by-name-only"}}) == "by-name-only"
	fixtures.decide({"attributes/contextExtensions": {"tollkeeper.route": "open"}}).charge == {}
}

test_a_name_that_no_route_has_denies if {
	every name in ["", "nowhere", "Open"] {
		changes := object.union(
			fixtures.to("GET", "/open/x"),
			{"attributes/contextExtensions": {"tollkeeper.route": name}},
		)
		fixtures.decide(changes).reason == "policy_error"
	}
}

test_a_route_without_path_is_only_chosen_by_name if {
	chosen([{"name": "it"}], fixtures.to("GET", "/a")) == ""
	chosen([{"name": "it", "match": {"methods": ["GET"]}}], fixtures.to("GET", "/a")) == ""
}

test_no_routes_at_all if {
	fixtures.decide_in(fixtures.with_routes([]), {}).charge == {"rate": 1, "daily": 1, "credits": 1}
	not fixtures.decide_in(fixtures.with_routes([]), {"key/status": "missing"}).allowed
}

test_a_public_route_asks_for_nothing if {
	every change in [
		{"key/status": "missing"},
		{"key/status": "revoked"},
		{"key/status": "melted"},
		{"key/status": "unavailable"},
		{"revocation/stale": true},
		{"account/status": "suspended"},
		{"token/status": "expired"},
		{"key/plan": "gold"},
		{"quota": {}},
	] {
		fixtures.decide(object.union(fixtures.to("GET", "/open/x"), change)) == {"allowed": true, "charge": {}}
	}
}

test_a_public_route_does_not_excuse_the_form if {
	fixtures.decide(object.union(fixtures.to("GET", "/open/x"), {"key/status": "ambiguous"})).reason == "credential_ambiguous"
	fixtures.decide(fixtures.to("GET", "/open/../v1/all")).reason == "request_malformed"
	fixtures.decide(object.union(fixtures.to("GET", "/open/x"), {"attributes/request/http/method": ""})).reason == "request_malformed"
}

test_only_true_is_public if {
	every value in ["yes", "true", 1, {}, null, false, ["true"]] {
		routes := [{"match": {"path": "/**"}, "public": value}]
		fixtures.decide_in(fixtures.with_routes(routes), {"key/status": "missing"}).reason == "key_missing"
	}
}

# Each is what parsed_path holds after decoding.
test_hostile_paths_are_refused if {
	every segments in [
		["open", "..", "v1", "all"],
		["open", ".", "x"],
		["open", ".."],
		[".."],
		["."],
		["open", "..;", "v1"],
		["open", "..;jsessionid=1", "v1"],
		["open", ".;x", "v1"],
		["open", "..\\v1"],
		["open\\..\\v1"],
		["open", "x\u0000.png"],
		["open", "x\r\nhost: y"],
		["open", "x\u007f"],
		["open", "x\u0085"],
		["open", "\t"],
		["open", "%2e%2e", "v1"],
		["open", "%2E%2E%2Fv1"],
		["open", "..%2fv1"],
		["open", "x%5cy"],
		["open", "x%00"],
		["open", "x%0d%0a"],
		[],
		[1],
		["open", null],
		"open",
		{"0": "open"},
		null,
	] {
		fixtures.decide({"parsed_path": segments}).reason == "request_malformed"
	}
}

test_odd_paths_are_not_refused if {
	every segments in [
		[""],
		["a", ""],
		["a", "", "b"],
		["...", "b"],
		[".well-known", "x"],
		["a.", "..b", "b.."],
		["a;v=1", "x"],
		["100%"],
		["%20%c3%bc"],
		["ü", "日本", "a b"],
	] {
		fixtures.decide({"parsed_path": segments}).allowed
	}
}

test_a_path_has_to_begin_with_a_slash if {
	every path in ["*", "", "v1/all", "http://api.example.com/v1/all", "?"] {
		fixtures.decide({"attributes/request/http/path": path}).reason == "request_malformed"
	}
}
