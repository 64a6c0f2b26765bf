# METADATA
# title: Is the API key good?
# schemas:
#   - input: schema.input
package tollkeeper.key

import data.tollkeeper.caller
import data.tollkeeper.route

deny contains "key_missing" if {
	input.key.status == "missing"
	not caller.by_token
	not caller.doubtful
}

deny contains "key_malformed" if input.key.status == "malformed"

deny contains "key_unknown" if input.key.status == "unknown"

deny contains "key_revoked" if input.key.status == "revoked"

deny contains "key_rotated" if input.key.status == "rotated"

deny contains "key_disabled" if input.key.status == "disabled"

deny contains "key_not_yet_valid" if input.key.status == "not_yet_valid"

deny contains "key_expired" if input.key.status == "expired"

deny contains "key_wrong_environment" if wrong_environment

# The key store did not answer. That is our fault, not the caller's.
deny contains "store_unavailable" if input.key.status == "unavailable"

# An old list may lack this key. A list without a known age counts as old.
deny contains "state_stale" if not input.revocation.stale == false

deny contains "policy_error" if not status_known

# This is a separate rule because a function of an undefined value inside "not" is undefined too, and would deny nothing.
status_known if input.key.status in {
	"active", "ambiguous", "disabled", "expired", "malformed", "missing",
	"not_yet_valid", "revoked", "rotated", "unavailable", "unknown",
}

details[code] := sprintf("A key of the environment %q is needed.", [environment]) if {
	wrong_environment
	some code in deny
	count(deny) == 1
}

wrong_environment if {
	input.key.status == "active"
	environment
	not input.key.environment == environment
}

# The environment that is served here. The setting nearest to the request counts. Without any, keys of all environments
# are good.
environment := route.rule.environment if {
	route.rule.environment
} else := input.attributes.contextExtensions["tollkeeper.environment"] if {
	input.attributes.contextExtensions["tollkeeper.environment"]
} else := data.tollkeeper.environment
