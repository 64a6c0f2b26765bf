# METADATA
# title: Is the account in good standing?
# description: An account that has not paid is a matter of payment.rego.
# schemas:
#   - input: schema.input
package tollkeeper.account

import data.tollkeeper.caller

deny contains "account_suspended" if input.account.status == "suspended"

# A token may name an account that is nobody's here.
deny contains "permission_denied" if {
	caller.by_token
	input.account.status == "unknown"
}

deny contains "store_unavailable" if input.account.status == "unavailable"

# A key leads to an account, always. One that does not, or a status that nobody knows, is a fault of ours.
deny contains "policy_error" if not status_known

status_known if input.account.status in {"active", "overdue", "suspended", "unavailable"}

status_known if {
	caller.by_token
	input.account.status == "unknown"
}

# A token that is not good leads nowhere, and is refused for what it is.
status_known if caller.doubtful
