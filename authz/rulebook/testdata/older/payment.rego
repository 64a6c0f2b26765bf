# METADATA
# title: Is the account paid up, and is the route part of its plan?
# schemas:
#   - input: schema.input
package tollkeeper.payment

import data.tollkeeper.caller
import data.tollkeeper.route

deny contains "payment_overdue" if input.account.status == "overdue"

deny contains lapse(input.key.meta.subscription_ends)

deny contains lapse(input.account.meta.subscription_ends)

deny contains "plan_upgrade_required" if {
	route.rule.plans
	not plan_suffices
}

# A plan that is not defined would have no limits.
deny contains "policy_error" if not plan_defined

plan_defined if data.tollkeeper.plans[caller.plan]

plan_suffices if caller.plan in route.rule.plans

# Only a subscription with an end reads the clock, so that all other verdicts can be cached.
lapse(ends) := "subscription_expired" if {
	time.parse_rfc3339_ns(ends) <= time.now_ns()
} else := "policy_error" if {
	not time.parse_rfc3339_ns(ends) # an end that cannot be parsed would never come
}

details[code] := sprintf("Plans that include this: %s.", [concat(", ", route.rule.plans)]) if {
	route.rule.plans
	not plan_suffices
	some code in deny
	count(deny) == 1
}
