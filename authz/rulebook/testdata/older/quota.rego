# METADATA
# title: Do the limits that the request is charged to have enough left?
# schemas:
#   - input: schema.input
package tollkeeper.quota

import data.tollkeeper.charge

deny contains reason(name) if some name in lacking

# If the ledger did not answer, or nothing is known about a limit, that is our fault: the reason must not ask the caller to
# pay.
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

# The limits that may not cover their charge. Nearly every request has none, which makes the rest cheap. These rules do not
# compare numbers: if a reservation fails, Go asks the policy again with another state. So a verdict does not depend on how
# many units are left, and can be cached.
lacking := object.keys(charge.units) - covered

covered := {name |
	some name, _ in charge.units
	input.quota[name].state == "ok"
}

used_up(name) if empty(name)

used_up(name) if short(name)

empty(name) if input.quota[name].state == "exhausted"

# Some units are left, but not enough for this request.
short(name) if input.quota[name].state == "insufficient"

details[code] := sprintf("The limit %q has too little left: this costs %d.", [name, charge.units[name]]) if {
	count(lacking) == 1
	some name in lacking
	used_up(name)
	code := reason(name)
}
