# METADATA
# title: Is the account in good standing?
# description: An account that has not paid is a matter of payment.rego.
# schemas:
#   - input: schema.input
package tollkeeper.account

deny contains "account_suspended" if input.account.status == "suspended"

# A key leads to an account, always. One that does not, or a status that nobody knows, is a fault of ours.
deny contains "policy_error" if not status_known

status_known if input.account.status in {"active", "overdue", "suspended"}
