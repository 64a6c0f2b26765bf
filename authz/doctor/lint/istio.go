package lint

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
)

// The rules of this file look at what istiod makes Envoys of. The handful of fields that they need is read from YAML as
// it stands: Istio's own types would put five megabytes into the binary for them.

// mesh is a mesh configuration.
type mesh struct{ spot }

// provider is an extension provider that asks over gRPC.
type provider struct {
	spot // of the provider
	grpc spot
	name string
	mesh *mesh
}

const grpcProvider = "envoyExtAuthzGrpc"

// providers are those that ask Tollkeeper.
func (in *Input) providers() []provider {
	var out []provider
	for _, m := range in.meshes {
		for _, s := range m.at("extensionProviders").items() {
			p := provider{mesh: m, name: s.at("name").text()}
			p.spot = s.called("extension provider %q", p.name)
			p.grpc = p.at(grpcProvider)
			if p.grpc.is && (in.opt.Cluster == "" || in.opt.Cluster == p.name || strings.Contains(in.opt.Cluster, p.host())) {
				out = append(out, p)
			}
		}
	}
	return out
}

// host is the name of the service that a provider asks.
func (p *provider) host() string {
	text := p.grpc.at("service").text()
	if _, host, ok := strings.Cut(text, "/"); ok {
		return host
	}
	return text
}

func (p *provider) timeout() (d time.Duration, ok bool) {
	d, err := time.ParseDuration(p.grpc.at("timeout").text())
	return d, err == nil
}

// customs are the authorization policies that ask somebody.
func (in *Input) customs() []*object {
	var out []*object
	for _, o := range in.objectsOf("security.istio.io", "AuthorizationPolicy") {
		if o.at("spec", "action").text() == "CUSTOM" {
			out = append(out, o)
		}
	}
	return out
}

func istioFields(in *Input, report func(Finding)) {
	for _, p := range in.providers() {
		fields(p.grpc, report, "service port timeout failOpen clearRouteCache statusOnError includeRequestBodyInCheck")
		fields(p.grpc.at("includeRequestBodyInCheck"), report, "maxRequestBytes allowPartialMessage packAsBytes")
	}
	for _, o := range in.objectsOf("security.istio.io", "AuthorizationPolicy") {
		fields(o.at("spec"), report, "selector targetRef targetRefs rules action provider")
		for _, rule := range o.at("spec", "rules").items() {
			fields(rule, report, "from to when")
			for _, to := range rule.at("to").items() {
				fields(to.at("operation"), report, "hosts notHosts ports notPorts methods notMethods paths notPaths")
			}
		}
	}
}

func istioHTTP(in *Input, report func(Finding)) {
	if len(in.providers()) > 0 {
		return
	}
	for _, m := range in.meshes {
		for _, s := range m.at("extensionProviders").items() {
			if http := s.at("envoyExtAuthzHttp"); http.is {
				f := http.called("extension provider %q", s.at("name").text()).says("it asks over HTTP, which Tollkeeper does not answer")
				f.Remedy = "Use " + grpcProvider + "."
				report(f)
			}
		}
	}
}

func istioFailsOpen(in *Input, report func(Finding)) {
	for _, p := range in.providers() {
		if at := p.grpc.at("failOpen"); at.truthy() {
			f := at.says("a check that fails, or that nobody answers, lets the request through")
			f.Remedy = "Remove failOpen."
			report(f)
		}
	}
}

func istioOnError(in *Input, report func(Finding)) {
	for _, p := range in.providers() {
		at := p.grpc.at("statusOnError")
		if code, err := strconv.Atoi(at.text()); err != nil || code < 500 {
			f := at.says("without an answer callers get %s, as if they were to blame", statusText(at))
			f.Remedy = `Set statusOnError: "503".`
			report(f)
		}
	}
}

func statusText(s spot) string {
	if text := s.text(); text != "" {
		return text
	}
	return "403"
}

func istioTimeouts(in *Input, report func(Finding)) {
	all := in.providers()
	for _, p := range all {
		at := p.grpc.at("timeout")
		switch d, ok := p.timeout(); {
		case !at.is:
			report(at.says("there is no timeout, which means ten minutes"))
		case !ok || d <= 0 || d > maxCheck:
			report(at.says("a check is waited for up to %s: requests pile up behind a slow authorizer", at.text()))
		}
		for _, other := range all {
			if p.name != other.name && strings.HasPrefix(other.name, p.name) {
				f := p.at("name").says("the name begins the name %q: policies for that one run this one too", other.name)
				f.Remedy = "Choose names of which none begins another."
				report(f)
			}
		}
	}
}

func istioBody(in *Input, report func(Finding)) {
	for _, p := range in.providers() {
		if at := p.grpc.at("includeRequestBodyInCheck"); at.is {
			f := at.says("every body is held back before the check, which stalls streams")
			f.Severity, f.Remedy = Warning, "Remove includeRequestBodyInCheck."
			report(f)
		}
	}
}

func istioPaths(in *Input, report func(Finding)) {
	if in.slashesMergedByPatch() {
		return
	}
	for _, m := range in.meshes {
		if !slices.ContainsFunc(in.providers(), func(p provider) bool { return p.mesh == m }) {
			continue
		}
		at := m.at("pathNormalization", "normalization")
		if v := at.text(); v != "MERGE_SLASHES" && v != "DECODE_AND_MERGE_SLASHES" {
			f := at.says("//admin is not /admin to policies and routes, though it is to many services")
			f.Severity, f.Remedy = Warning, "Set pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}."
			if !at.is {
				f.Severity = Info // an EnvoyFilter may do it, or a part of the mesh configuration that is not here
			}
			report(f)
		}
	}
}

// undefined: nobody is asked, or nobody is found, and istiod denies everything.
func undefined(in *Input, report func(Finding)) {
	var names []string
	for _, m := range in.meshes {
		for _, s := range m.at("extensionProviders").items() {
			names = append(names, s.at("name").text())
		}
	}
	for _, o := range in.customs() {
		at := o.at("spec", "provider", "name")
		if name := at.text(); len(in.meshes) > 0 && !slices.Contains(names, name) {
			report(at.says("the mesh configuration has no extension provider %q: everything that the policy covers is denied", name))
		}
	}
	for _, p := range in.providers() {
		in.resolves(&p, report)
	}
	for _, e := range in.envoys {
		for _, m := range e.managers {
			for _, f := range m.filters {
				if r, ok := f.msg.(*rbacv3.RBAC); ok && slices.ContainsFunc(slices.Collect(maps.Keys(r.GetRules().GetPolicies())), func(name string) bool {
					return strings.Contains(name, "deny-due-to-bad-CUSTOM-action")
				}) {
					report(f.says("istiod could not make a check of a CUSTOM policy, and denies everything that it covers"))
				}
			}
		}
	}
}

// resolves: the service of a provider is there, with the port.
func (in *Input) resolves(p *provider, report func(Finding)) {
	host, port := p.host(), p.grpc.at("port").text()
	ports, known := in.portsOf(host)
	at := p.grpc.at("service")
	switch {
	case !known:
		if in.hasServices(host) {
			report(at.says("there is no service %q: everything that asks it is denied", host))
		}
	case !slices.ContainsFunc(ports, func(s spot) bool { return portNumber(s) == port }):
		report(p.grpc.at("port").says("the service %q has no port %s: everything that asks it is denied", host, port))
	}
}

func portNumber(s spot) string {
	if n := s.at("port").text(); n != "" {
		return n
	}
	return s.at("number").text()
}

// portsOf are the ports of a service, whichever way the mesh knows it.
func (in *Input) portsOf(host string) (ports []spot, known bool) {
	if o := in.serviceOf(host); o != nil {
		return o.at("spec", "ports").items(), true
	}
	for _, o := range in.objectsOf("networking.istio.io", "ServiceEntry") {
		for _, h := range o.at("spec", "hosts").items() {
			if h.text() == host {
				return o.at("spec", "ports").items(), true
			}
		}
	}
	return nil, false
}

// hasServices reports whether the files hold the services of a host's namespace, so that one that is missing is missing.
func (in *Input) hasServices(host string) bool {
	parts := strings.Split(host, ".")
	return len(parts) > 1 && slices.ContainsFunc(in.objectsOf("", "Service"), func(o *object) bool { return o.namespace == parts[1] })
}

func notGRPC(in *Input, report func(Finding)) {
	for _, p := range in.providers() {
		ports, _ := in.portsOf(p.host())
		for _, port := range ports {
			if portNumber(port) != p.grpc.at("port").text() || speaksGRPC(port) {
				continue
			}
			report(port.called("service %s", p.host()).says("port %s is not declared to speak gRPC: every check of %q fails", portNumber(port), p.name))
		}
	}
}

func speaksGRPC(port spot) bool {
	for _, word := range []string{port.at("appProtocol").text(), port.at("protocol").text(), port.at("name").text()} {
		word, _, _ = strings.Cut(strings.ToLower(word), "-")
		if slices.Contains([]string{"grpc", "http2", "kubernetes.io/h2c"}, word) {
			return true
		}
	}
	return false
}
