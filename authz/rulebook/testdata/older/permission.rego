# METADATA
# title: May this caller use the route?
# schemas:
#   - input: schema.input
package tollkeeper.permission

import data.tollkeeper.caller
import data.tollkeeper.route

deny contains "permission_denied" if {
	route.rule.scopes
	not scopes_suffice
}

# "every" is undefined for anything but a collection, so misspelt scopes in a route admit no caller.
scopes_suffice if {
	every scope in route.rule.scopes { scope in input.key.scopes }
}

scopes_suffice if {
	input.token.status == "valid"
	every scope in route.rule.scopes { scope in input.token.scopes }
}

scopes_suffice if {
	caller.united
	every scope in route.rule.scopes { caller.holds(scope) }
}

details[code] := sprintf("Scopes needed: %s.", [concat(", ", route.rule.scopes)]) if some code in deny
