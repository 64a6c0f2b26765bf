# METADATA
# title: What do the operator's own rules say?
# description: >-
#   The rule deny in the package tollkeeper.custom adds objections: {"reason": "ip_not_allowed", "detail": "…"}, a text,
#   or true. An objection without a usable reason denies as policy_denied. Operators may write the rule in any form, so
#   the rules below that read it are functions: the compiler does not fix the types of a function's arguments.
#
#   The package keeps the name tollkeeper.hook, which authz.rego and copies of it ask for. In Rego a reference to a package
#   that does not exist is undefined and no error, so under a new name an edited authz.rego from an older version would
#   skip the operator's rules. The name tollkeeper.custom belongs to the operator, as does the file name custom.rego.
package tollkeeper.hook

deny contains code(objection) if some objection in objections

# Of several sentences for one reason, the caller sees the first in alphabetical order.
details[reason] := sentences[0] if {
	some reason in deny
	sentences := sort([text |
		some objection in objections
		code(objection) == reason
		text := sentence(objection)
	])
	count(sentences) > 0
}

objections := listed(data.tollkeeper.custom.deny)

# "deny contains … if …", and lists
listed(said) := said if {
	is_set(said)
} else := said if {
	is_array(said)
} else := [] if {
	said == false
} else := [said] if {
	not is_object(said) # "deny if …" and "deny := "…" if …"
} else := [said] if {
	is_string(said.reason) # "deny := {"reason": …} if …"
} else := array.concat(
	[name | some name, value in said; value == true], # "deny["…"] if …"
	[value | some value in said; not is_boolean(value)], # "deny["…"] := {"reason": …} if …"
)

code(objection) := objection.reason if {
	is_string(objection.reason)
	regex.match(`^[a-z][a-z0-9_]{2,63}$`, objection.reason)
} else := "policy_denied"

sentence(objection) := objection if {
	is_string(objection)
} else := objection.detail if {
	is_string(objection.detail)
}
