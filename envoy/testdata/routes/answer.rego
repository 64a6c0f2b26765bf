# The shipped decision, with header fields that tell the client how it came about.
package e2e

answer := object.union(verdict, {"response_headers_to_add": told}) if verdict.allowed

answer := object.union(verdict, {"headers": told}) if not verdict.allowed

verdict := data.envoy.authz.allow

told := {
	"x-e2e-path": trim_space(concat(" ", [input.path.state, object.get(input.path, "fault", "")])),
	"x-e2e-route": object.get(input.route, "name", input.route.state),
	"x-e2e-charge": json.marshal(object.get(verdict, "charge", null)),
	"x-e2e-setting": data.e2e.setting,
}
