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

# The limits that do not provably cover their charge: none for nearly every request, which makes the rest cheap.
lacking := object.keys(charge.units) - covered

covered := {name |
	some name, units in charge.units
	input.quota[name].state == "ok"
	input.quota[name].remaining >= units
}

used_up(name) if empty(name)

used_up(name) if short(name)

empty(name) if input.quota[name].state == "exhausted"

empty(name) if {
	input.quota[name].state == "ok"
	input.quota[name].remaining <= 0
}

short(name) if input.quota[name].state == "insufficient"

# Enough is left for some requests, but not for this one.
short(name) if {
	input.quota[name].state == "ok"
	input.quota[name].remaining > 0
}

details[code] := sprintf("The limit %q has too little left: this costs %d.", [name, charge.units[name]]) if {
	count(lacking) == 1
	some name in lacking
	used_up(name)
	code := reason(name)
}
