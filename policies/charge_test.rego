# What requests cost, which callers may make them, and when a limit has enough left.
package tollkeeper.charge_test

import data.tollkeeper.fixtures

# The decision on a route like this, for a caller on that plan.
decide(route, plan) := decide_with(route, {"key/plan": plan})

decide_with(route, changes) := fixtures.decide(object.union(fixtures.on(route), changes))

test_one_of_each_limit_that_counts_requests if {
	decide({}, "pro").charge == {"rate": 1, "daily": 1, "credits": 1}
	decide({}, "free").charge == {"rate": 1, "daily": 1}
}

test_a_plan_without_limits_costs_nothing if {
	decide({}, "bare").charge == {}
	decide({"charge": {"credits": 5}}, "bare").charge == {}
}

test_a_route_names_its_price if {
	decide({"charge": {"tokens": 70, "rate": 1}}, "pro").charge == {"tokens": 70, "rate": 1}
}

test_limits_that_the_plan_lacks_are_left_out if {
	decide({"charge": {"credits": 5, "rate": 2}}, "free").charge == {"rate": 2}
}

test_a_price_in_limits_that_the_plan_lacks_is_the_ordinary_one if {
	decide({"charge": {"credits": 5}}, "free").charge == {"rate": 1, "daily": 1}
}

test_a_route_may_be_free if {
	decide({"charge": {}}, "pro").charge == {}
	decide({"charge": {"credits": 0, "rate": 1}}, "pro").charge == {"rate": 1}
	decide({"charge": {"credits": 0}}, "pro").charge == {}
}

test_a_price_that_is_not_a_whole_number_denies if {
	every price in [-1, 0.5, "5", null, true, [5], {}] {
		decide({"charge": {"credits": price, "rate": 1}}, "pro").reason == "policy_error"
	}
}

test_a_charge_that_is_not_an_object_denies if {
	every wrong in [5, "credits", ["credits"], null, true] {
		decide({"charge": wrong}, "pro").reason == "policy_error"
	}
}

test_only_what_is_charged_has_to_have_room if {
	changes := {"quota/credits/state": "exhausted", "quota/daily/state": "unavailable", "quota/tokens": {}}
	decide_with({"charge": {"rate": 1}}, changes).allowed
	decide_with({"charge": {"rate": 1, "credits": 0}}, changes).allowed
}

test_the_window_says_which_reason if {
	every window, reason in {
		"second": "rate_limited",
		"minute": "rate_limited",
		"hour": "quota_exceeded",
		"day": "quota_exceeded",
		"month": "quota_exceeded",
		"none": "credits_exhausted",
		"fortnight": "policy_error",
	} {
		plans := {"pro": {"limits": {"daily": {"units": 1, "window": window}}}}
		place := object.union(fixtures.world, {"plans": plans})
		fixtures.decide_in(place, {"quota/daily/state": "exhausted"}).reason == reason
	}
}

test_little_is_not_enough if {
	costs := {"charge": {"daily": 10}}
	decide_with(costs, {}).allowed
	decide_with(costs, {"quota/daily": {"state": "insufficient", "remaining": 50}}).reason == "quota_exceeded"
}

test_credits_tell_little_from_nothing if {
	costs := {"charge": {"credits": 10}}
	decide_with(costs, {}).allowed
	decide_with(costs, {"quota/credits": {"state": "insufficient", "remaining": 3}}).reason == "credits_insufficient"
	decide_with(costs, {"quota/credits": {"state": "exhausted", "remaining": 0}}).reason == "credits_exhausted"
}

test_misspelt_scopes_admit_no_caller if {
	every wrong in ["read", 5, true, [["read"]]] {
		decide({"scopes": wrong}, "pro").reason == "permission_denied"
	}
}

test_an_empty_list_of_scopes_needs_none if {
	decide({"scopes": []}, "pro").allowed
	decide_with({"scopes": ["read"]}, {"key/scopes": []}).reason == "permission_denied"
}

test_misspelt_plans_admit_no_caller if {
	every wrong in ["pro", 5, true, {}, []] {
		decide({"plans": wrong}, "pro").reason == "plan_upgrade_required"
	}
}

test_the_nearest_environment_counts if {
	by_envoy := {"attributes/contextExtensions": {"tollkeeper.environment": "test"}}
	of_test := object.union(by_envoy, {"key/environment": "test"})
	decide_with({}, {"key/environment": "test"}).reason == "key_wrong_environment"
	decide_with({}, by_envoy).reason == "key_wrong_environment"
	decide_with({}, of_test).allowed
	decide_with({"environment": "live"}, of_test).reason == "key_wrong_environment"
	decide_with({"environment": "live"}, by_envoy).allowed
}

test_any_value_but_false_requires_a_token if {
	every value in ["required", "requierd", true, {}] {
		decide_with({"token": value}, {"token/status": "missing"}).reason == "token_missing"
	}
	decide_with({"token": false}, {"token/status": "missing"}).allowed
}
