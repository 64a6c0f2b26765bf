# METADATA
# title: Is this a request that can be understood?
# description: >-
#   What a rule or the upstream could read in two ways is refused before anything is decided on it. Public routes do not
#   excuse a fault of form.
# schemas:
#   - input: schema.input
package tollkeeper.form

deny contains "request_malformed" if not well_formed

deny contains "credential_ambiguous" if input.key.status == "ambiguous"

# The pattern finds segments "." and ".." (some servers cut them at a semicolon), backslashes that some servers take for
# slashes, control characters, and escapes of those that are left after decoding, for a server that decodes twice.
well_formed if {
	input.attributes.request.http.method != ""
	startswith(input.attributes.request.http.path, "/")
	input.parsed_path[0]
	not regex.match(`(^|/)\.\.?(/|;|$)|[\\\x00-\x1f\x7f-\x{9f}]|(?i:%2e|%2f|%5c|%[01][0-9a-f]|%7f)`, path)
}

# The decoded path without its leading slashes.
path := concat("/", input.parsed_path)
