# METADATA
# title: May this caller use the route?
# schemas:
#   - input: schema.input
package tollkeeper.permission

import data.tollkeeper.caller

deny contains "permission_denied" if {
	input.route.scopes
	not scopes_suffice
}

# "every" is undefined for anything but a collection, so misspelt scopes in a route admit no caller.
scopes_suffice if {
	every scope in input.route.scopes { scope in input.key.scopes }
}

scopes_suffice if {
	input.token.status == "valid"
	every scope in input.route.scopes { scope in input.token.scopes }
}

scopes_suffice if {
	caller.united
	every scope in input.route.scopes { caller.holds(scope) }
}

details[code] := sprintf("Scopes needed: %s.", [concat(", ", input.route.scopes)]) if some code in deny
