# METADATA
# title: The decision
# description: >-
#   Asks one concern after the other. The first one that objects gives the reason, so a caller without a key learns
#   nothing about plans and quotas. If one concern has several objections, data.tollkeeper.precedence chooses.
#   data.tollkeeper.reasons gives the status of the reason.
# schemas:
#   - input: schema.input
package envoy.authz

import data.tollkeeper.account
import data.tollkeeper.charge
import data.tollkeeper.form
import data.tollkeeper.hook as custom_rules # in custom_rules.rego
import data.tollkeeper.key
import data.tollkeeper.payment
import data.tollkeeper.permission
import data.tollkeeper.quota
import data.tollkeeper.route
import data.tollkeeper.token

# This is the decision if anything below is undefined.
default allow := {"allowed": false, "http_status": 403, "reason": "policy_error"}

allow := {"allowed": true, "charge": cost} if {
	objection == []
} else := object.union_n([
	{"allowed": false, "http_status": status(code), "reason": code},
	{"detail": text | text := objection[1][code]},
	{"charge": units | units := objection[2]},
]) if {
	code := first(objection[0])
}

# objection is the first concern's that objects: its reasons, and sentences for the caller by reason. Without any it is
# empty. It only picks, so that nothing undefined in here can pass for "no objection".
objection := [form.deny, {}] if some _ in form.deny

else := [route.deny, {}] if some _ in route.deny

else := objection_on_public if route.public

else := [key.deny, key.details] if some _ in key.deny

else := [account.deny, {}] if some _ in account.deny

else := [token.deny, {}] if some _ in token.deny

else := [permission.deny, permission.details] if some _ in permission.deny

else := [custom_rules.deny, custom_rules.details] if some _ in custom_rules.deny

else := [payment.deny, payment.details] if some _ in payment.deny

else := [charge.deny, {}] if some _ in charge.deny

else := [quota.deny, quota.details, charge.units] if some _ in quota.deny

else := []

# Callers need no key here, but the operator's own rules apply.
objection_on_public := [custom_rules.deny, custom_rules.details] if some _ in custom_rules.deny

else := []

cost := {} if {
	route.public
} else := charge.units

# Codes that the precedence does not list are an operator's own. They come last, in alphabetical order.
first(codes) := listed[0] if {
	listed := [code | some code in data.tollkeeper.precedence; code in codes]
	count(listed) > 0
} else := sort(codes)[0]

# A status below 300 would let the request pass, so it counts as a mistake in the data.
status(code) := number if {
	number := data.tollkeeper.reasons[code].status[data.tollkeeper.profile]
	number >= 300
	number <= 599
} else := 403
