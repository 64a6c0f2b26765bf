# METADATA
# title: Who pays, and what may they do?
# description: >-
#   A caller has a key, a bearer token, or both. With a key, the key's plan and account count. A token alone is enough if
#   its issuer says which account pays and the route does not require a key.
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

# united: key and token certainly belong to one account. An issuer whose tokens name no account may have issued this one
# to any caller.
united if {
	input.token.status == "valid"
	input.token.same_account
	not input.token.accountless
}

# A caller holds a scope that the key or the token has. If a route needs several, some may be on the key and others on the
# token only if the two are united.
holds(scope) if scope in input.key.scopes

holds(scope) if {
	input.token.status == "valid"
	scope in input.token.scopes
}
