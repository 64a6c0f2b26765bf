# What the route that applies means for the decision, and the reading of the path.
package tollkeeper.route_test

import data.tollkeeper.fixtures

unmatched(value, changes) := fixtures.decide_in(
	fixtures.with_unmatched(value),
	object.union(fixtures.on_none, changes),
)

test_without_a_route_each_limit_that_counts_requests_is_charged if {
	unmatched("charge", {}) == {"allowed": true, "charge": {"rate": 1, "daily": 1, "credits": 1}}
	unmatched("charge", {"quota/daily/state": "exhausted"}).reason == "quota_exceeded"
}

test_without_a_route_requests_may_be_free if {
	unmatched("allow", {}) == {"allowed": true, "charge": {}}
	unmatched("allow", {"quota": {}}) == {"allowed": true, "charge": {}}
}

test_without_a_route_requests_may_be_refused if {
	unmatched("deny", {}) == {"allowed": false, "http_status": 403, "reason": "route_unknown"}
	unmatched("deny", {"key/status": "missing"}).reason == "route_unknown"
}

test_without_a_route_a_good_caller_is_needed if {
	every value in ["charge", "allow"] {
		every change, reason in {
			"key/status": {"missing": "key_missing", "revoked": "key_revoked", "melted": "policy_error"},
			"account/status": {"suspended": "account_suspended", "overdue": "payment_overdue"},
			"token/status": {"expired": "token_expired"},
			"key/plan": {"gold": "policy_error"},
			"key/environment": {"test": "key_wrong_environment"},
		} {
			every status, code in reason { unmatched(value, {change: status}).reason == code }
		}
	}
}

test_an_unknown_value_of_unmatched_denies if {
	every value in ["", "Deny", "allowed", "public", null, true, false, 0, [], {}, ["allow"], {"allow": true}] {
		unmatched(value, {}).reason == "policy_error"
		fixtures.decide_in(fixtures.with_unmatched(value), {}).reason == "policy_error"
	}
}

test_unmatched_does_not_change_routes if {
	every value in ["charge", "allow", "deny"] {
		fixtures.decide_in(fixtures.with_unmatched(value), {}) == fixtures.decide({})
		fixtures.decide_in(fixtures.with_unmatched(value), fixtures.on({})).charge == {"rate": 1, "daily": 1, "credits": 1}
	}
}

test_a_route_that_is_missing_denies if {
	every value in ["charge", "allow", "deny"] {
		every route in [{"state": "missing"}, {"state": "missing", "public": true}, {"public": true}, {}, {"state": "OK"}] {
			fixtures.decide_in(fixtures.with_unmatched(value), {"route": route}).reason == "policy_error"
		}
	}
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
		fixtures.decide(object.union(fixtures.on_public, change)) == {"allowed": true, "charge": {}}
	}
}

test_a_public_route_does_not_excuse_the_form if {
	every change, reason in {
		"key/status": {"ambiguous": "credential_ambiguous"},
		"path/state": {"malformed": "request_malformed", "ambiguous": "request_malformed"},
	} {
		every value, code in reason {
			fixtures.decide(object.union(fixtures.on_public, {change: value})).reason == code
		}
	}
}

test_only_true_is_public if {
	every value in ["yes", "true", 1, {}, null, false, ["true"]] {
		changes := object.union(fixtures.on({"public": value}), {"key/status": "missing"})
		fixtures.decide(changes).reason == "key_missing"
	}
	without_route := {"route": {"state": "none", "public": true}, "key/status": "missing"}
	fixtures.decide(without_route).reason == "key_missing"
}

test_only_a_path_that_is_ok_is_accepted if {
	every state in ["malformed", "ambiguous", "OK", "", null, true, false, 1, [], {}, ["ok"]] {
		fixtures.decide({"path": {"state": state}}) == {"allowed": false, "http_status": 403, "reason": "request_malformed"}
		fixtures.decide({"path": {"state": state, "fault": "matrix_parameter"}}).reason == "request_malformed"
	}
}

test_a_fault_of_the_path_is_explained if {
	every fault, text in data.tollkeeper.form.advice {
		fixtures.decide({"path": {"state": "malformed", "fault": fault}}).detail == text
	}
	every fault in ["melted", "", null, 1, {}] {
		not fixtures.decide({"path": {"state": "malformed", "fault": fault}}).detail
		fixtures.decide({"path": {"state": "malformed", "fault": fault}}).reason == "request_malformed"
	}
}

# Rules of the path's text are Go's: what callers choose freely must not reach a verdict.
test_the_decision_is_the_same_for_every_id if {
	every request in [
		{"method": "GET", "path": "/v1/all"},
		{"method": "BREW", "path": "/v2/../x;y", "host": "elsewhere"},
		{},
	] {
		changes := {
			"attributes/request/http": request,
			"parsed_path": ["..", "x"],
			"parsed_query": {},
			"route/params": {"version": "v9"},
			"route/name": "other",
		}
		fixtures.decide(changes) == fixtures.decide({})
	}
}
