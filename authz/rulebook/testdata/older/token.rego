# METADATA
# title: Is the bearer token good?
# description: >-
#   A request needs a token only if its route requires one. A token that is sent must be good, and a key beside it must
#   belong to the same account.
# schemas:
#   - input: schema.input
package tollkeeper.token

import data.tollkeeper.route

deny contains "token_missing" if {
	input.token.status == "missing"
	route.rule.token
}

deny contains "token_malformed" if input.token.status == "malformed"

deny contains "token_signature_invalid" if input.token.status == "bad_signature"

deny contains "token_issuer_untrusted" if input.token.status == "untrusted_issuer"

deny contains "token_audience_mismatch" if input.token.status == "wrong_audience"

deny contains "token_expired" if input.token.status == "expired"

deny contains "token_not_yet_valid" if input.token.status == "not_yet_valid"

deny contains "token_revoked" if input.token.status == "revoked"

deny contains "token_inactive" if input.token.status == "inactive"

deny contains "token_binding_failed" if input.token.status == "unbound"

deny contains "token_status_unknown" if input.token.status == "unavailable"

deny contains "credential_ambiguous" if {
	input.key.status == "active"
	input.token.status == "valid"
	not input.token.same_account
}

deny contains "policy_error" if not status_known

status_known if input.token.status in {
	"bad_signature", "expired", "inactive", "malformed", "missing", "not_yet_valid",
	"revoked", "unavailable", "unbound", "untrusted_issuer", "valid", "wrong_audience",
}
