# Callers with a bearer token, alone and beside a key.
package tollkeeper.token_test

import data.tollkeeper.fixtures

# The decision on a request with only a token of that account, on that route, with some changes.
decide(route, changes) := fixtures.decide(object.union_n([
	fixtures.on(route),
	object.remove(token_alone, object.keys(changes)),
	changes,
]))

token_alone := {
	"key": {"status": "missing"},
	"token": {
		"status": "valid",
		"has_account": true,
		"same_account": false,
		"scopes": ["read"],
		"claims": {"sub": "alice", "acr": "high"},
	},
}

test_a_token_takes_the_place_of_a_key if {
	decide({}, {}).charge == {"rate": 1, "daily": 1, "credits": 1}
	decide({"charge": {"credits": 5}}, {}).charge == {"credits": 5}
	decide({"plans": ["pro"]}, {}).allowed
	decide({"token": "required"}, {}).allowed
	decide({"token": "required", "key": "required"}, {}).reason == "key_missing"
	decide({"plans": ["pro"]}, {"account/plan": "free"}).reason == "plan_upgrade_required"
	decide({}, {"account/plan": "no_such_plan"}).reason == "policy_error"
	decide({}, {"quota/daily/state": "exhausted"}).reason == "quota_exceeded"
}

test_a_token_of_no_account_does_not if {
	decide({}, {"token": {"status": "valid", "has_account": false, "claims": {}}}).reason == "key_missing"
	decide({"key": "required"}, {}).reason == "key_missing"
	decide({"key": "required"}, {"token/status": "expired"}).reason == "key_missing"
}

test_each_fault_of_a_token_has_its_reason if {
	every status, reason in {
		"malformed": "token_malformed",
		"bad_signature": "token_signature_invalid",
		"untrusted_issuer": "token_issuer_untrusted",
		"wrong_audience": "token_audience_mismatch",
		"expired": "token_expired",
		"not_yet_valid": "token_not_yet_valid",
		"revoked": "token_revoked",
		"inactive": "token_inactive",
		"unbound": "token_binding_failed",
		"unavailable": "token_status_unknown",
		"melted": "policy_error",
		"": "policy_error",
	} {
		alone := {"token": {"status": status}, "account": {"status": "unknown"}}
		decide({}, alone).reason == reason
		decide({}, object.union(alone, {"token/has_account": true})).reason == reason
		fixtures.decide({"token/status": status}).reason == reason
	}
	not decide({}, {"token": {}}).allowed
	not decide({}, {"token": {"status": null}}).allowed
	decide({}, {"token": {"status": "missing"}}).reason == "key_missing"
}

test_the_account_of_a_token_must_be_in_good_standing if {
	decide({}, {"account": {"status": "unknown"}}).reason == "permission_denied"
	decide({}, {"account/status": "unavailable"}).reason == "store_unavailable"
	decide({}, {"account/status": "suspended"}).reason == "account_suspended"
	decide({}, {"account/status": "overdue"}).reason == "payment_overdue"
	decide({}, {"account/status": "melted"}).reason == "policy_error"
	decide({}, {"account/meta": {"subscription_ends": fixtures.past}}).reason == "subscription_expired"
	fixtures.decide({"account/status": "unavailable"}).reason == "store_unavailable"
	fixtures.decide({"account/status": "unknown"}).reason == "policy_error"
}

test_scopes_may_be_on_either if {
	decide({"scopes": ["read"]}, {}).allowed
	decide({"scopes": ["read", "list"]}, {}).reason == "permission_denied"
	both := {"token": {"status": "valid", "same_account": true, "scopes": ["list"]}, "key/scopes": ["read"]}
	fixtures.decide(both).allowed
	fixtures.decide(object.union(both, {"key/scopes": []})).reason == "permission_denied"
	fixtures.decide({"token": {"status": "missing", "scopes": ["list"]}, "key/scopes": ["read"]}).allowed == false
}

# The decision if the token names no account.
beside_accountless(token_scopes, key_scopes) := fixtures.decide({
	"token": {"status": "valid", "same_account": true, "accountless": true, "scopes": token_scopes},
	"key/scopes": key_scopes,
})

test_scopes_are_united_for_one_account_only if {
	beside_accountless(["list"], ["read"]).reason == "permission_denied"
	beside_accountless(["list", "read"], []).allowed
	beside_accountless([], ["read", "list"]).allowed
}

test_key_and_token_are_of_one_account if {
	fixtures.decide({"token/same_account": true}).allowed
	fixtures.decide({"token/same_account": false}).reason == "credential_ambiguous"
	fixtures.decide({"token/same_account": false, "token/status": "expired"}).reason == "token_expired"
	fixtures.decide({"token/same_account": false, "key/status": "expired"}).reason == "key_expired"
	fixtures.decide({"token": {"status": "valid"}}).reason == "credential_ambiguous"
}

test_the_key_counts_where_there_are_both if {
	fixtures.decide({"account/plan": "free"}).charge.credits == 5
}

test_a_stale_list_denies_tokens_as_well if {
	decide({}, {"revocation/stale": true}).reason == "state_stale"
}

test_custom_rules_read_claims if {
	world := fixtures.with_custom({{"reason": "step_up"} |
		not token_alone.token.claims.acr == "high"
	})
	fixtures.decide_in(world, object.union(fixtures.on_none, token_alone)).allowed
}
