# METADATA
# title: What do the operator's own rules say?
# description: >-
#   Rules in the package tollkeeper.custom add objections such as {"reason": "ip_not_allowed", "detail": "…"}. An
#   objection without a usable reason denies as policy_denied.
package tollkeeper.hook

deny contains code(objection) if some objection in data.tollkeeper.custom.deny

# "deny if …" in place of "deny contains … if …" is meant to deny as well.
deny contains "policy_denied" if {
	data.tollkeeper.custom.deny
	not objections_listed
}

objections_listed if some _ in data.tollkeeper.custom.deny

objections_listed if data.tollkeeper.custom.deny in [set(), [], {}]

code(objection) := objection.reason if {
	regex.match(`^[a-z][a-z0-9_]{2,63}$`, objection.reason)
} else := "policy_denied"

# Of several sentences for one reason the first in alphabetical order is told.
details[reason] := sentences[0] if {
	some reason in deny
	sentences := sort([objection.detail |
		some objection in data.tollkeeper.custom.deny
		code(objection) == reason
		is_string(objection.detail)
	])
	count(sentences) > 0
}
