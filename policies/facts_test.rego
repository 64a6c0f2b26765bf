# A missing fact, or a value that these rules do not know, is never a permission.
package tollkeeper.facts_test

import data.tollkeeper.fixtures

denied(decision) if {
	decision.allowed == false
	decision.reason in {"policy_error", "request_malformed", "state_stale"}
}

decide_without(path) := decision if {
	decision := data.envoy.authz.allow with input as json.remove(fixtures.good, [path])
		with data.tollkeeper.plans as fixtures.world.plans
		with data.tollkeeper.unmatched as fixtures.world.unmatched
		with data.tollkeeper.custom as {}
		with data.tollkeeper.environment as "live"
		with data.tollkeeper.profile as "strict"
}

test_an_unusable_input_denies if {
	every nothing in [{}, [], null, "", 0, false, {"attributes": {}}, {"key": {"status": "active"}}] {
		decision := data.envoy.authz.allow with input as nothing
		decision.allowed == false
		decision.http_status >= 400
		decision.reason == "request_malformed"
	}
}

test_a_missing_fact_denies if {
	every path in [
		"path", "path/state", "route", "route/state", "key", "key/status", "key/plan", "account", "account/status",
		"token", "token/status", "revocation", "revocation/stale", "quota", "quota/daily", "quota/daily/state",
	] {
		denied(decide_without(path))
	}
}

test_a_key_without_scopes_or_environment_has_none if {
	decide_without("key/scopes").reason == "permission_denied"
	decide_without("key/environment").reason == "key_wrong_environment"
}

test_facts_that_no_rule_reads_may_be_missing if {
	every path in [
		"version", "attributes", "parsed_path", "parsed_query", "route/name", "route/template", "route/params",
		"key/meta", "account/meta", "quota/tokens", "quota/daily/remaining",
	] {
		decide_without(path).allowed
	}
}

test_an_unknown_value_denies if {
	every path in [
		"path", "path/state", "route", "route/state", "key", "key/status", "key/plan", "account", "account/status",
		"token", "token/status", "revocation", "revocation/stale", "quota", "quota/daily", "quota/daily/state",
	] {
		every value in [null, "", "melted", 1, [], {}, ["active"], {"active": true}] {
			denied(fixtures.decide({path: value}))
		}
	}
}

test_no_token_is_fine_unless_the_route_requires_one if {
	fixtures.decide(object.union(fixtures.on_none, {"token/status": "missing"})).allowed
}

test_an_empty_environment_is_not_the_served_one if {
	fixtures.decide({"key/environment": ""}).reason == "key_wrong_environment"
}

test_a_subscription_may_end_later if {
	fixtures.decide({
		"key/meta/subscription_ends": fixtures.future,
		"account/meta/subscription_ends": fixtures.future,
	}).allowed
}

test_either_subscription_counts if {
	every path in ["key/meta/subscription_ends", "account/meta/subscription_ends"] {
		fixtures.decide({path: fixtures.past}).reason == "subscription_expired"
	}
}

test_a_subscription_has_ended_at_its_end if {
	decide_at("2030-01-01T00:00:00Z").reason == "subscription_expired"
	decide_at("2029-12-31T23:59:59.999999999Z").allowed
}

decide_at(time_of_day) := decision if {
	now := time.parse_rfc3339_ns(time_of_day)
	decision := fixtures.decide({"key/meta/subscription_ends": "2030-01-01T00:00:00Z"}) with time.now_ns as now
}

test_an_end_that_cannot_be_parsed_does_not_mean_never if {
	every value in ["", "2030-01-01", "never", 5, null, true, {}] {
		fixtures.decide({"key/meta/subscription_ends": value}).reason == "policy_error"
	}
}
