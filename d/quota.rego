# METADATA
# title: Is enough left of the limits that the request is charged for?
# schemas:
#   - input: schema.input
package tollkeeper.quota

import data.tollkeeper.charge

deny contains reason(name) if some name in lacking

# When the ledger could not say, or nothing is known of a limit, it is our fault, and nobody has to pay for it.
reason(name) := "store_unavailable" if {
	input.quota[name].state == "unavailable"
} else := "quota_exceeded" if {
	used_up(name)
	charge.limits[name].window in {"hour", "day", "month"}
} else := "rate_limited" if {
	used_up(name)
	charge.limits[name].window in {"second", "minute"}
} else := "credits_exhausted" if {
	empty(name)
	charge.limits[name].window == "none"
} else := "credits_insufficient" if {
	short(name)
	charge.limits[name].window == "none"
} else := "policy_error"

# The limits that do not provably cover their charge: none for nearly every request, which makes the rest cheap. Whether
# what is left covers the charge is for who counts to say: where it does not, the policy is asked again, and the state is
# another one. So a verdict does not depend on how many units are left, and is the same from request to request.
lacking := object.keys(charge.units) - covered

covered := {name |
	some name, _ in charge.units
	input.quota[name].state == "ok"
}

used_up(name) if empty(name)

used_up(name) if short(name)

empty(name) if input.quota[name].state == "exhausted"

# Enough is left for some requests, but not for this one.
short(name) if input.quota[name].state == "insufficient"

details[code] := sprintf("The limit %q has too little left: this costs %d.", [name, charge.units[name]]) if {
	count(lacking) == 1
	some name in lacking
	used_up(name)
	code := reason(name)
}
