# METADATA
# title: Is the account in good standing?
# description: payment.rego handles accounts that have not paid.
# schemas:
#   - input: schema.input
package tollkeeper.account

import data.tollkeeper.caller

deny contains "account_suspended" if input.account.status == "suspended"

# A token may name an account that does not exist here.
deny contains "permission_denied" if {
	caller.by_token
	input.account.status == "unknown"
}

deny contains "store_unavailable" if input.account.status == "unavailable"

# Every key has an account. A key without one, or a status that these rules do not know, is our fault.
deny contains "policy_error" if not status_known

status_known if input.account.status in {"active", "overdue", "suspended", "unavailable"}

status_known if {
	caller.by_token
	input.account.status == "unknown"
}

# A token that is not good has no account. token.rego refuses it.
status_known if caller.doubtful
