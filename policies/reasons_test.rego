# Every reason, the precedence of reasons, and the answer for a reason.
package tollkeeper.reasons_test

import data.tollkeeper.fixtures

# One fault each, in order of precedence: a change of the input, and perhaps of the data and of custom rules.
faults := [
	{"reason": "request_malformed", "change": {"path": {"state": "malformed", "fault": "dot_segment"}}},
	{"reason": "credential_ambiguous", "change": {"key/status": "ambiguous"}},
	{"reason": "route_unknown", "change": fixtures.on_none, "unmatched": "deny"},
	{"reason": "policy_error", "change": {"route": {"state": "missing"}}},
	{"reason": "key_missing", "change": {"key/status": "missing", "token": {"status": "missing"}}},
	{"reason": "key_malformed", "change": {"key/status": "malformed"}},
	{"reason": "policy_error", "change": {"key/status": "melted"}},
	{"reason": "store_unavailable", "change": {"key/status": "unavailable"}},
	{"reason": "state_stale", "change": {"revocation/stale": true}},
	{"reason": "key_unknown", "change": {"key/status": "unknown"}},
	{"reason": "key_revoked", "change": {"key/status": "revoked"}},
	{"reason": "key_rotated", "change": {"key/status": "rotated"}},
	{"reason": "key_disabled", "change": {"key/status": "disabled"}},
	{"reason": "key_not_yet_valid", "change": {"key/status": "not_yet_valid"}},
	{"reason": "key_expired", "change": {"key/status": "expired"}},
	{"reason": "key_wrong_environment", "change": {"key/environment": "test"}},
	{"reason": "policy_error", "change": {"account/status": "melted"}},
	{"reason": "policy_error", "change": {"account/status": "unknown"}},
	{"reason": "account_suspended", "change": {"account/status": "suspended"}},
	{"reason": "policy_error", "change": {"token/status": "melted"}},
	{"reason": "token_missing", "change": {"token/status": "missing"}},
	{"reason": "token_malformed", "change": {"token/status": "malformed"}},
	{"reason": "token_signature_invalid", "change": {"token/status": "bad_signature"}},
	{"reason": "token_issuer_untrusted", "change": {"token/status": "untrusted_issuer"}},
	{"reason": "token_audience_mismatch", "change": {"token/status": "wrong_audience"}},
	{"reason": "token_expired", "change": {"token/status": "expired"}},
	{"reason": "token_not_yet_valid", "change": {"token/status": "not_yet_valid"}},
	{"reason": "token_revoked", "change": {"token/status": "revoked"}},
	{"reason": "token_inactive", "change": {"token/status": "inactive"}},
	{"reason": "token_binding_failed", "change": {"token/status": "unbound"}},
	{"reason": "token_status_unknown", "change": {"token/status": "unavailable"}},
	{"reason": "permission_denied", "change": {"key/scopes": ["read"]}},
	{"reason": "policy_denied", "change": {}, "custom": {{}}},
	{"reason": "policy_error", "change": {"key/plan": "gold"}},
	{"reason": "policy_error", "change": {"key/meta/subscription_ends": "next year"}},
	{"reason": "payment_overdue", "change": {"account/status": "overdue"}},
	{"reason": "subscription_expired", "change": {"account/meta/subscription_ends": fixtures.past}},
	{"reason": "plan_upgrade_required", "change": {"key/plan": "free"}},
	{"reason": "policy_error", "change": {"quota/rate": {"state": "melted", "remaining": 1}}},
	{"reason": "store_unavailable", "change": {"quota/daily/state": "unavailable"}},
	{"reason": "quota_exceeded", "change": {"quota/daily/state": "exhausted"}},
	{"reason": "credits_exhausted", "change": {"quota/credits": {"state": "exhausted", "remaining": 0}}},
	{"reason": "credits_insufficient", "change": {"quota/credits": {"state": "insufficient", "remaining": 4}}},
	{"reason": "rate_limited", "change": {"quota/rate/state": "exhausted"}},
]

# The reasons that Go gives without a policy.
outside := {"decision_timeout"}

decide(place, faults_made) := fixtures.decide_in(
	object.union_n(array.concat(
		[place, {"custom": union({object.get(fault, "custom", set()) | some fault in faults_made})}],
		[{"unmatched": value} | some fault in faults_made; value := fault.unmatched],
	)),
	object.union_n([fault.change | some fault in faults_made]),
)

test_good_request_is_allowed if {
	fixtures.decide({}) == {"allowed": true, "charge": {"rate": 1, "daily": 1, "credits": 5}}
}

test_every_fault_gives_its_reason if {
	every fault in faults {
		decision := decide(fixtures.world, [fault])
		decision.allowed == false
		decision.reason == fault.reason
	}
}

test_every_reason_is_given if {
	given := {fault.reason | some fault in faults} | outside
	given == {code | some code in data.tollkeeper.precedence}
}

test_every_reason_has_its_texts if {
	every code in data.tollkeeper.precedence {
		reason := data.tollkeeper.reasons[code]
		reason.title != ""
		endswith(reason.remedy, ".")
		reason.retry in {"never", "reset", "soon"}
	}
}

test_the_first_of_two_reasons_is_given if {
	pairs := [[a, b] |
		some i, a in faults
		some j, b in faults
		i < j
		independent(a, b)
	]
	count(pairs) > 400
	every pair in pairs { decide(fixtures.world, pair).reason == pair[0].reason }
}

# Faults are independent unless one sets the part of the input that the other sets, or a part of that.
independent(a, b) if {
	every p, _ in a.change {
		every q, _ in b.change {
			not startswith(concat("/", [p, ""]), concat("/", [q, ""]))
			not startswith(concat("/", [q, ""]), concat("/", [p, ""]))
		}
	}
}

test_a_profile_changes_statuses_and_nothing_else if {
	every profile in ["strict", "article", "rfc"] {
		every fault in faults {
			decision := decide(object.union(fixtures.world, {"profile": profile}), [fault])
			decision.reason == fault.reason
			decision.http_status == data.tollkeeper.reasons[fault.reason].status[profile]
		}
	}
}

test_unknown_profile_denies_with_403 if {
	decision := fixtures.decide_in(object.union(fixtures.world, {"profile": "lenient"}), {"account/status": "overdue"})
	decision == {"allowed": false, "http_status": 403, "reason": "payment_overdue"}
}

test_a_status_that_would_let_pass_is_not_used if {
	decision := fixtures.decide({"key/status": "expired"}) with data.tollkeeper.reasons as {"key_expired": {"status": {"strict": 200}}}
	decision.http_status == 403
}

test_without_any_data_nothing_is_allowed if {
	decision := data.envoy.authz.allow with input as fixtures.good
		with data.tollkeeper.plans as {}
		with data.tollkeeper.precedence as {}
		with data.tollkeeper.reasons as {}
		with data.tollkeeper.profile as {}
		with data.tollkeeper.custom as {}
		with data.tollkeeper.environment as fixtures.good.key.environment
	decision == {"allowed": false, "http_status": 403, "reason": "policy_error"}
}

test_without_a_precedence_a_reason_is_given if {
	decision := fixtures.decide({"key/status": "expired", "revocation/stale": true}) with data.tollkeeper.precedence as []
	decision.reason == "key_expired"
}

# The sentences that callers get.
test_details if {
	told := {
		"request_malformed": "Send the path without the segments . and .., encoded or not.",
		"key_wrong_environment": "A key of the environment \"live\" is needed.",
		"permission_denied": "Scopes needed: read, list.",
		"plan_upgrade_required": "Plans that include this: pro, team.",
		"quota_exceeded": "The limit \"daily\" has too little left: this costs 1.",
		"credits_insufficient": "The limit \"credits\" has too little left: this costs 5.",
	}
	every code, text in told {
		some fault in faults
		fault.reason == code
		decide(fixtures.world, [fault]).detail == text
	}
}

test_a_detail_is_about_the_reason_that_is_given if {
	matrix := {"path": {"state": "malformed", "fault": "matrix_parameter"}}
	fixtures.decide(object.union(matrix, {"key/status": "ambiguous"})).detail == data.tollkeeper.form.advice.matrix_parameter
	not fixtures.decide({"key/status": "ambiguous"}).detail
	not fixtures.decide({"key/environment": "test", "revocation/stale": true}).detail
	not fixtures.decide({"key/plan": "free", "account/status": "overdue"}).detail
	not fixtures.decide({"quota/daily/state": "exhausted", "quota/rate/state": "exhausted"}).detail
	not fixtures.decide({"quota/daily/state": "unavailable"}).detail
}
