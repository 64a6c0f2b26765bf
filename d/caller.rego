# METADATA
# title: Who pays, and what may they do?
# description: >-
#   A caller has a key, a bearer token, or both. With a key, the key's plan and account count; a token alone will do where
#   its issuer says which account pays, and the route does not ask for a key.
# schemas:
#   - input: schema.input
package tollkeeper.caller

import data.tollkeeper.route

# by_token: a good token takes the place of a key.
by_token if {
	token_only
	input.token.status == "valid"
	input.token.has_account
}

# doubtful: there is only a token, and it is not good. token.rego says what is wrong with it.
doubtful if {
	token_only
	not input.token.status in {"missing", "valid"}
}

token_only if {
	input.key.status == "missing"
	not route.rule.key
}

plan := input.account.plan if {
	by_token
} else := input.key.plan

# A scope is held by whoever has it on the key or on the token.
holds(scope) if scope in input.key.scopes

holds(scope) if {
	input.token.status == "valid"
	scope in input.token.scopes
}
