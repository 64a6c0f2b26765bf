# The operator's own rules, in the package tollkeeper.custom.
package tollkeeper.custom_rules_test

import data.tollkeeper.fixtures

decide(objections, changes) := fixtures.decide_in(fixtures.with_custom(objections), changes)

# said is the decision without its status, which the table of reasons chooses.
said(objections) := object.remove(decide(objections, {}), ["http_status"])

test_no_custom_rules if {
	decide(set(), {}).allowed
	fixtures.decide({}).allowed with data.tollkeeper.custom as {}
}

test_a_custom_reason_is_a_403 if {
	decision := decide({{"reason": "ip_not_allowed", "detail": "Come from the office."}}, {})
	decision == {"allowed": false, "http_status": 403, "reason": "ip_not_allowed", "detail": "Come from the office."}
}

test_a_custom_reason_may_have_its_own_status if {
	own := {"trial_ended": {"status": {"strict": 402, "article": 402, "rfc": 402}}}
	decision := decide({{"reason": "trial_ended"}}, {}) with data.tollkeeper.reasons as own
	decision == {"allowed": false, "http_status": 402, "reason": "trial_ended"}
}

test_a_shipped_reason_may_be_given if {
	decision := decide({{"reason": "plan_upgrade_required"}}, {})
	decision == {"allowed": false, "http_status": 402, "reason": "plan_upgrade_required"}
}

test_an_objection_without_a_usable_reason_denies if {
	every wrong in [{}, "no", 5, null, false, {"reason": ""}, {"reason": 5}, {"reason": "No Way"}, {"reason": "x\ny"}, {"reason": "ab"}, {"reason": concat("", ["a", sprintf("%064d", [1])])}, {"code": "abc"}] {
		decide({wrong}, {}).reason == "policy_denied"
	}
}

test_a_deny_that_is_not_a_set_denies if {
	every wrong in [true, 5, null, {"reason": "No Way"}, {"reason": 5}, [false], [{}], {"a": {}}, {"a": [1]}] {
		said(wrong) == {"allowed": false, "reason": "policy_denied"}
	}
	every nothing in [false, [], {}, {"a": false}] { decide(nothing, {}).allowed }
}

# "deny contains …", "deny := …", "deny["…"]" and "deny := […]".
test_a_text_is_a_detail if {
	every form in [{"Closed."}, "Closed.", {"Closed.": true}, ["Closed."], {"x": "Closed."}] {
		said(form) == {"allowed": false, "reason": "policy_denied", "detail": "Closed."}
	}
	decide({"read_only"}, {}).reason == "policy_denied"
}

test_an_objection_may_stand_in_any_form if {
	own := {"reason": "read_only", "detail": "Read."}
	every form in [{own}, own, [own], {"x": own}, {own, "Closed."}] {
		not decide(form, {}).allowed
	}
	every form in [{own}, own, [own], {"x": own}] {
		decide(form, {}) == {"allowed": false, "http_status": 403, "reason": "read_only", "detail": "Read."}
	}
}

test_a_detail_that_is_not_a_string_is_left_out if {
	every wrong in [5, null, ["x"], {}] {
		decide({{"reason": "ip_not_allowed", "detail": wrong}}, {}) == {"allowed": false, "http_status": 403, "reason": "ip_not_allowed"}
	}
}

test_of_several_objections_one_is_given if {
	both := {{"reason": "bbb", "detail": "B."}, {"reason": "aaa", "detail": "Z."}, {"reason": "aaa", "detail": "A."}}
	decide(both, {}).reason == "aaa"
	decide(both, {}).detail == "A."
	decide(both | {{"reason": "policy_denied"}}, {}).reason == "policy_denied"
}

test_custom_rules_come_after_permission_and_before_payment if {
	own := {{"reason": "ip_not_allowed"}}
	decide(own, {"key/scopes": []}).reason == "permission_denied"
	decide(own, {"account/status": "overdue"}).reason == "ip_not_allowed"
}

test_custom_rules_hold_on_public_routes if {
	decide({{"reason": "ip_not_allowed"}}, fixtures.on_public).reason == "ip_not_allowed"
	decide(set(), fixtures.on_public).allowed
}
