# METADATA
# title: Is the request well formed?
# description: >-
#   Tollkeeper reads the path once. A request that the upstream could read in another way is refused before any other rule
#   decides. Public routes are no exception.
# schemas:
#   - input: schema.input
package tollkeeper.form

deny contains "request_malformed" if not input.path.state == "ok"

deny contains "credential_ambiguous" if input.key.status == "ambiguous"

details[code] := advice[input.path.fault] if {
	some code in deny
	code == "request_malformed"
}

# What callers are told about each fault.
advice := {
	"no_method": "Send a method, such as GET.",
	"not_absolute": "Send a path that begins with a slash.",
	"unreadable": "Send the path in UTF-8, and escapes as % and two hexadecimal digits.",
	"dot_segment": "Send the path without the segments . and .., encoded or not.",
	"backslash": "Send the path without backslashes, encoded or not.",
	"control_character": "Send the path without control characters.",
	"matrix_parameter": "Send the path without semicolons, and parameters in the query.",
	"encoded_slash": "Send the path without encoded slashes (%2F).",
	"repeated_slash": "Send the path with one slash between segments.",
	"double_encoded": "Encode the path only once.",
	"loose_ending": "Send the path without dots and spaces at the end of a segment.",
	"cut_short": "Send the path without encoded question marks (%3F) and number signs (%23).",
	"compatible_text": "Send the path in plain letters, without variants such as full-width letters.",
	"method_case": "Send the method in capital letters.",
	"method_override": "Send the method itself, without a header or parameter that replaces it.",
	"url_override": "Send the path itself, without a header that replaces it.",
}
