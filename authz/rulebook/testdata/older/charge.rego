# METADATA
# title: What does the request cost?
# schemas:
#   - input: schema.input
package tollkeeper.charge

import data.tollkeeper.caller
import data.tollkeeper.route

# units is the charge by the name of the limit. It names every limit that is charged, also where the route names none.
units := ordinary if not route.rule.charge

else := {name: n | some name, n in priced; n > 0} if {
	count(priced) > 0
} else := {} if {
	count(route.rule.charge) == 0
} else := ordinary

# A price must be a whole number of units. Only prices in limits of the caller's plan are checked.
deny contains "policy_error" if {
	route.rule.charge
	not prices_sound
}

prices_sound if {
	is_object(route.rule.charge)
	every n in priced {
		is_number(n)
		n >= 0
		floor(n) == n
	}
}

# One unit of each limit that counts requests.
ordinary := {name: 1 |
	some name, limit in limits
	object.get(limit, "unit", "requests") == "requests"
}

# The route's prices in limits that the caller's plan has.
priced := {name: n | some name, n in route.rule.charge; limits[name]}

limits := data.tollkeeper.plans[caller.plan].limits
