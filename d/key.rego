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

# The key store could not say. This is our fault and must not look like the caller's.
deny contains "store_unavailable" if input.key.status == "unavailable"

# Whether a key was revoked meanwhile is not known, and neither is it when nobody says how old the list is.
deny contains "state_stale" if not input.revocation.stale == false

deny contains "policy_error" if not status_known

# A rule of its own: inside "not" a function of something undefined would be undefined too, and deny nothing.
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

# The environment that is served here: the nearest setting counts. Where there is none, keys of all environments are
# good.
environment := route.rule.environment if {
	route.rule.environment
} else := input.attributes.contextExtensions["tollkeeper.environment"] if {
	input.attributes.contextExtensions["tollkeeper.environment"]
} else := data.tollkeeper.environment
