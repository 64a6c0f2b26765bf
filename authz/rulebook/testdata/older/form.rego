# METADATA
# title: Is the request well formed?
# description: >-
#   Refuses a request that a rule and the upstream could read in different ways, before any other rule decides. Public
#   routes are no exception.
# schemas:
#   - input: schema.input
package tollkeeper.form

deny contains "request_malformed" if not well_formed

deny contains "credential_ambiguous" if input.key.status == "ambiguous"

# The pattern finds the segments "." and ".." (some servers cut them at a semicolon), backslashes (some servers read them
# as slashes), control characters, and escapes of all these that are left after decoding (some servers decode twice).
well_formed if {
	input.attributes.request.http.method != ""
	startswith(input.attributes.request.http.path, "/")
	input.parsed_path[0]
	not regex.match(`(^|/)\.\.?(/|;|$)|[\\\x00-\x1f\x7f-\x{9f}]|(?i:%2e|%2f|%5c|%[01][0-9a-f]|%7f)`, path)
}

# The decoded path without its leading slashes.
path := concat("/", input.parsed_path)
