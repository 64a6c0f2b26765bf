package lint

import (
	"slices"
	"strings"
	"time"
)

// The rules of this file look at how Envoy Gateway reaches Tollkeeper, and at patches of what it makes.

// backend is who a security policy asks.
type backend struct {
	spot
	policy          *object
	group, kind     string
	namespace, name string
}

func (in *Input) backends() []backend {
	var out []backend
	for _, o := range in.asking() {
		out = append(out, backendsOf(o)...)
	}
	return out
}

func backendsOf(o *object) []backend {
	var out []backend
	refs := o.extAuth("grpc", "backendRefs").items()
	if one := o.extAuth("grpc", "backendRef"); one.is {
		refs = append(refs, one)
	}
	for _, r := range refs {
		b := backend{spot: r, policy: o, group: r.at("group").text(), kind: r.at("kind").text(), namespace: r.at("namespace").text(), name: r.at("name").text()}
		if b.kind == "" {
			b.kind = "Service"
		}
		if b.namespace == "" {
			b.namespace = o.namespace
		}
		out = append(out, b)
	}
	return out
}

// unreachable: a backend that is not there, or that the policy may not refer to.
func unreachable(in *Input, report func(Finding)) {
	for _, b := range in.backends() {
		if in.objectCalled(b.group, b.kind, b.namespace, b.name) == nil {
			if slices.ContainsFunc(in.objectsOf(b.group, b.kind), func(o *object) bool { return o.namespace == b.namespace }) {
				report(b.says("there is no %s %s/%s: requests are answered with 500", b.kind, b.namespace, b.name))
			}
			continue
		}
		if b.namespace != b.policy.namespace && !in.granted(&b) {
			report(b.says("no ReferenceGrant in %s lets a SecurityPolicy of %s refer to the %s: requests are answered with 500", b.namespace, b.policy.namespace, b.kind))
		}
	}
}

func (in *Input) granted(b *backend) bool {
	for _, g := range in.objectsOf(gatewayGroup, "ReferenceGrant") {
		if g.namespace != b.namespace {
			continue
		}
		from := slices.ContainsFunc(g.at("spec", "from").items(), func(s spot) bool {
			return s.at("group").text() == egGroup && s.at("kind").text() == "SecurityPolicy" && s.at("namespace").text() == b.policy.namespace
		})
		to := slices.ContainsFunc(g.at("spec", "to").items(), func(s spot) bool {
			name := s.at("name").text()
			return s.at("group").text() == b.group && s.at("kind").text() == b.kind && (name == "" || name == b.name)
		})
		if from && to {
			return true
		}
	}
	return false
}

// egClear: nobody says that TLS is to be used.
func egClear(in *Input, report func(Finding)) {
	for _, b := range in.backends() {
		o := in.objectCalled(b.group, b.kind, b.namespace, b.name)
		if o == nil || o.at("spec", "tls").is || in.backendLocal(o) {
			continue
		}
		if slices.ContainsFunc(in.objectsOf(gatewayGroup, "BackendTLSPolicy"), func(p *object) bool {
			return p.namespace == b.namespace && slices.ContainsFunc(targets(p), func(r spot) bool {
				return r.at("kind").text() == b.kind && r.at("name").text() == b.name
			})
		}) {
			continue
		}
		f := b.says("checks, with the credentials in them, cross the network in the clear, and whoever answers is believed")
		f.Severity, f.Remedy = Warning, "Give Tollkeeper a certificate, and add a BackendTLSPolicy for its "+b.kind+"."
		report(f)
	}
}

// backendLocal reports whether a Backend is a socket or this machine.
func (in *Input) backendLocal(o *object) bool {
	endpoints := o.at("spec", "endpoints").items()
	return len(endpoints) > 0 && !slices.ContainsFunc(endpoints, func(s spot) bool {
		return !s.at("unix").is && !loopback(s.at("ip", "address").text()) && s.at("fqdn", "hostname").text() != "localhost"
	})
}

func egConnects(in *Input, report func(Finding)) {
	for _, o := range in.asking() {
		at := o.extAuth("grpc", "backendSettings", "timeout", "tcp", "connectTimeout")
		connect, err := time.ParseDuration(at.text())
		if err != nil {
			connect = istioConnect // the same here
		}
		if wait := o.checkTimeout(); connect >= wait {
			f := at.says("connecting may take %v and a check only %v: a host that does not answer costs whole checks", connect, wait)
			f.Remedy = "Set grpc.backendSettings.timeout.tcp.connectTimeout: 100ms."
			report(f)
		}
	}
}

func egBreakers(in *Input, report func(Finding)) {
	for _, o := range in.asking() {
		at := o.extAuth("grpc", "backendSettings", "circuitBreaker", "maxParallelRequests")
		if number(at.text()) <= defaultMaxRequests {
			f := at.says("more than %d checks at a time are refused, which is an outage at the first burst", max(number(at.text()), defaultMaxRequests))
			f.Remedy = "Set grpc.backendSettings.circuitBreaker: {maxParallelRequests: 10000, maxPendingRequests: 10000}."
			report(f)
		}
	}
}

func egRetries(in *Input, report func(Finding)) {
	for _, o := range in.asking() {
		for _, s := range o.extAuth("grpc", "backendSettings", "retry", "retryOn", "triggers").items() {
			if slices.Contains(badRetries, s.text()) {
				report(s.says("%q repeats checks that Tollkeeper saw: that charges twice, and doubles the load when it is slow", s.text()))
			}
		}
	}
}

// patches are the values that EnvoyPatchPolicies put at a path that ends so.
func (in *Input) patches(suffix string) []spot {
	var out []spot
	for _, o := range in.objectsOf(egGroup, "EnvoyPatchPolicy") {
		for _, p := range o.at("spec", "jsonPatches").items() {
			if strings.HasSuffix(p.at("operation", "path").text(), suffix) {
				out = append(out, p.at("operation", "value"))
			}
		}
	}
	return out
}

func egHardened(in *Input, report func(Finding)) {
	if len(in.patches("/validate_mutations"))+len(in.patches("/decoder_header_mutation_rules")) > 0 {
		return
	}
	for _, o := range in.asking() {
		report(o.extAuth().says("no EnvoyPatchPolicy hardens the filter that Envoy Gateway makes"))
	}
}

// switchedOff: Envoy Gateway passes over kinds that are not switched on.
func switchedOff(in *Input, report func(Finding)) {
	for _, c := range in.objectsOf(egGroup, "EnvoyGateway") {
		for kind, field := range map[string]string{"EnvoyPatchPolicy": "enableEnvoyPatchPolicy", "Backend": "enableBackend"} {
			if at := c.at("extensionApis", field); len(in.objectsOf(egGroup, kind)) > 0 && !at.truthy() {
				report(at.says("%s is not switched on: %s has no effect", kind, in.objectsOf(egGroup, kind)[0].object))
			}
		}
	}
}

// egUnlimited: Envoy Gateway lets WebSockets through by default.
func egUnlimited(in *Input, report func(Finding)) {
	if slices.ContainsFunc(in.objectsOf(egGroup, "BackendTrafficPolicy"), func(o *object) bool {
		return o.at("spec", "timeout", "http", "maxStreamDuration").is
	}) {
		return
	}
	for _, o := range in.asking() {
		f := o.at("spec").says("no BackendTrafficPolicy ends streams: a WebSocket is checked when it is opened and lasts as long as it likes")
		f.Severity, f.Remedy = Info, "Set timeout: {http: {maxStreamDuration: 1h}} in a BackendTrafficPolicy."
		report(f)
	}
}
