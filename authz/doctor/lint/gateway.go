package lint

import (
	"fmt"
	"slices"
	"strings"
	"time"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// The rules of this file look at what Envoy Gateway makes Envoys of. Its own types are a heavy dependency, so that the
// handful of fields that they need is read from YAML as it stands.

const (
	egGroup      = "gateway.envoyproxy.io"
	gatewayGroup = "gateway.networking.k8s.io"
)

// asking are the security policies that ask over gRPC.
func (in *Input) asking() []*object {
	var out []*object
	for _, o := range in.objectsOf(egGroup, "SecurityPolicy") {
		if o.extAuth().is && !o.dropsCheck() {
			out = append(out, o)
		}
	}
	return out
}

func (o *object) extAuth(path ...string) spot { return o.at("spec", "extAuth").at(path...) }

func egFields(in *Input, report func(Finding)) {
	for _, o := range in.asking() {
		fields(o.extAuth(), report, "grpc http headersToExtAuth bodyToExtAuth timeout failOpen recomputeRoute includeRouteMetadata contextExtensions statusOnError")
		fields(o.extAuth("grpc"), report, "backendRef backendRefs backendSettings")
		fields(o.extAuth("bodyToExtAuth"), report, "maxRequestBytes")
		for _, x := range o.extAuth("contextExtensions").items() {
			fields(x, report, "name type value valueRef")
		}
	}
	for _, o := range in.objectsOf(egGroup, "ClientTrafficPolicy") {
		fields(o.at("spec", "headers", "earlyRequestHeaders"), report, "set add addIfAbsent remove removeOnMatch")
	}
}

func egHTTP(in *Input, report func(Finding)) {
	for _, o := range in.asking() {
		if at := o.extAuth("http"); at.is {
			f := at.says("it asks over HTTP, which Tollkeeper does not answer")
			f.Remedy = "Use grpc."
			report(f)
		}
	}
}

func egFailsOpen(in *Input, report func(Finding)) {
	for _, o := range in.asking() {
		if at := o.extAuth("failOpen"); at.truthy() {
			report(at.says("a check that fails, or a policy that cannot be translated, lets every request through"))
		}
	}
}

func egOnError(in *Input, report func(Finding)) {
	for _, o := range in.asking() {
		if at := o.extAuth("statusOnError"); number(at.text()) < 500 {
			f := at.says("without an answer callers get %s, as if they were to blame", statusText(at))
			f.Remedy = "Set statusOnError: 503."
			report(f)
		}
	}
}

// egTimeout is how long Envoy Gateway waits for a check, unless told.
const egTimeout = 10 * time.Second

func (o *object) checkTimeout() time.Duration {
	if d, err := time.ParseDuration(o.extAuth("timeout").text()); err == nil {
		return d
	}
	return egTimeout
}

func egTimeouts(in *Input, report func(Finding)) {
	for _, o := range in.asking() {
		if d := o.checkTimeout(); d > maxCheck || d <= 0 {
			f := o.extAuth("timeout").says("a check is waited for up to %v: requests pile up behind a slow authorizer", d)
			f.Remedy = "Set timeout: 300ms."
			report(f)
		}
	}
}

func egBody(in *Input, report func(Finding)) {
	for _, o := range in.asking() {
		if at := o.extAuth("bodyToExtAuth"); at.is {
			f := at.says("every body is held back before the check, which stalls streams")
			f.Severity, f.Remedy = Warning, "Remove bodyToExtAuth."
			report(f)
		}
	}
}

func egRecomputes(in *Input, report func(Finding)) {
	for _, o := range in.asking() {
		if at := o.extAuth("recomputeRoute"); at.truthy() {
			f := at.says("the route is chosen again after the check: what was checked may not be what is served")
			f.Remedy = "Remove recomputeRoute."
			report(f)
		}
	}
}

func egWithheld(in *Input, report func(Finding)) {
	headers, _ := in.credentials()
	for _, o := range in.asking() {
		at := o.extAuth("headersToExtAuth")
		if !at.is {
			continue // all are sent
		}
		for _, h := range headers {
			if !slices.ContainsFunc(at.items(), func(s spot) bool { return strings.EqualFold(s.text(), h) }) {
				f := at.says("%s is not among the headers that Tollkeeper is shown: a credential in it counts as missing", h)
				f.Remedy = "Add it, or remove headersToExtAuth."
				report(f)
			}
		}
	}
}

// overridden: a route has a policy of its own, which takes the place of the gateway's, check and all.
func overridden(in *Input, report func(Finding)) {
	for _, o := range in.objectsOf(egGroup, "SecurityPolicy") {
		merges, drops := o.at("spec", "mergeType").is, o.dropsCheck()
		asks := o.extAuth().is && !drops
		if merges && !asks && !drops || in.named(o.name) {
			continue
		}
		for _, ref := range in.refs(o) {
			above := in.gatewayPolicyOf(o, ref)
			if above == nil {
				continue
			}
			where := fmt.Sprintf("%s %q", ref.at("kind").text(), ref.at("name").text())
			switch {
			case merges && drops:
				report(mended(o.extAuth().says("it takes the check of %s away: %s is open", above.object, where), "Leave extAuth out, so that the gateway's is kept."))
			case !asks:
				report(ref.says("it takes the place of %s, and asks nobody: %s is open", above.object, where))
			default:
				asksAnother(o, above, where, report)
			}
		}
	}
}

// dropsCheck reports whether a policy that is merged into another takes its check out.
func (o *object) dropsCheck() bool {
	at := o.extAuth()
	return at.is && len(at.keys()) == 0 || at.key("$patch").text() == "delete"
}

// asksAnother: the policy of a route asks, though not who is asked above it. One that goes by our name is Tollkeeper.
func asksAnother(o, above *object, where string, report func(Finding)) {
	here, there := backendsOf(o), backendsOf(above)
	ours := func(b backend) bool { return strings.Contains(b.name, "tollkeeper") }
	for _, b := range here {
		if ours(b) || slices.ContainsFunc(there, func(x backend) bool { return x.kind == b.kind && x.namespace == b.namespace && x.name == b.name }) {
			continue
		}
		f := b.says("it takes the place of %s, and asks %s %s/%s, for %s", above.object, b.kind, b.namespace, b.name, where)
		if !slices.ContainsFunc(there, ours) {
			f.Severity = Warning // which of the two is Tollkeeper?
		}
		report(f)
	}
}

// gatewayPolicyOf is a policy that asks and that another one overrides at what it is attached to, nil if none is here.
func (in *Input) gatewayPolicyOf(o *object, ref spot) *object {
	for _, above := range in.asking() {
		for _, to := range in.refs(above) {
			if above == o || to.at("kind").text() != "Gateway" {
				continue
			}
			gateway := to.at("name").text()
			if ref.at("kind").text() == "Gateway" {
				if above.namespace == o.namespace && (gateway == "" || ref.at("name").text() == gateway) && ref.at("sectionName").is && !to.at("sectionName").is {
					return above
				}
				continue
			}
			route := in.objectCalled(gatewayGroup, ref.at("kind").text(), o.namespace, ref.at("name").text())
			if route != nil && attached(route, above.namespace, gateway) {
				return above
			}
		}
	}
	return nil
}

// refs are what a policy of Envoy Gateway is attached to, by name or by labels. One that chooses Gateways which are not in
// the files may mean any of its namespace, and has no name.
func (in *Input) refs(o *object) []spot {
	out := targets(o)
	for _, s := range o.at("spec", "targetSelectors").items() {
		group, kind := s.at("group").text(), s.at("kind").text()
		if group == "" {
			group = gatewayGroup
		}
		found := false
		for _, x := range in.objectsOf(group, kind) {
			if found = found || x.namespace == o.namespace; x.namespace == o.namespace && selects(s, x.at("metadata", "labels")) {
				out = append(out, s.standsFor(kind, x.name))
			}
		}
		if !found && kind == "Gateway" {
			out = append(out, s.standsFor(kind, ""))
		}
	}
	return out
}

// standsFor is the spot as a reference to an object by its name.
func (s spot) standsFor(kind, name string) spot {
	text := func(value string) *node { return &node{line: s.seen, scalar: value} }
	s.near = &node{isMap: true, line: s.seen, keys: []string{"kind", "name"}, items: []*node{text(kind), text(name)}, at: []int{s.seen, s.seen}}
	return s
}

// attached reports whether a route belongs to a gateway, or to any of a namespace if that has no name.
func attached(route *object, namespace, gateway string) bool {
	return slices.ContainsFunc(route.at("spec", "parentRefs").items(), func(p spot) bool {
		ns := p.at("namespace").text()
		if ns == "" {
			ns = route.namespace
		}
		return ns == namespace && (gateway == "" || p.at("name").text() == gateway)
	})
}

// refused: Envoy Gateway, or Envoy, did not take an object.
func refused(in *Input, report func(Finding)) {
	for _, kind := range []string{"SecurityPolicy", "ClientTrafficPolicy", "BackendTrafficPolicy", "EnvoyPatchPolicy", "Backend"} {
		for _, o := range in.objectsOf(egGroup, kind) {
			conditions := o.at("status", "conditions").items()
			for _, a := range o.at("status", "ancestors").items() {
				conditions = append(conditions, a.at("conditions").items()...)
			}
			for _, c := range conditions {
				t := c.at("type").text()
				if c.at("status").text() != "False" || t != "Accepted" && t != "Programmed" && t != "ResolvedRefs" {
					continue
				}
				f := c.says("it is not in force: %s is False, %s", t, strings.TrimSuffix(c.at("message").text(), "."))
				if kind != "SecurityPolicy" {
					f.Severity = Warning
				}
				report(f)
			}
		}
	}
}

// egStripped: the gateways of policies that ask take forged headers out.
func egStripped(in *Input, report func(Finding)) {
	for _, o := range in.asking() {
		if !slices.ContainsFunc(in.objectsOf(egGroup, "ClientTrafficPolicy"), func(c *object) bool { return stripsHeaders(c) && in.shares(o, c) }) {
			f := o.at("spec").says("no ClientTrafficPolicy of the gateway takes x-tollkeeper-* of clients away: on routes without a check your service believes them")
			if len(in.objectsOf(egGroup, "ClientTrafficPolicy")) == 0 {
				f.Severity = Warning // it may stand in files that are not here
			}
			f.Remedy = "Add a ClientTrafficPolicy for the gateway with headers: {earlyRequestHeaders: {removeOnMatch: [{type: Prefix, value: x-tollkeeper-}]}}."
			report(f)
		}
	}
}

func stripsHeaders(o *object) bool {
	early := o.at("spec", "headers", "earlyRequestHeaders")
	return slices.ContainsFunc(early.at("removeOnMatch").items(), func(s spot) bool {
		value := s.at("value").text()
		switch s.at("type").text() {
		case "Prefix":
			return value != "" && strings.HasPrefix("x-tollkeeper-", strings.ToLower(value))
		case "RegularExpression":
			return !slices.ContainsFunc(identity, func(h string) bool { return !matchesRegex(&matcherv3.RegexMatcher{Regex: value}, h) })
		}
		return false
	})
}

// shares reports whether a ClientTrafficPolicy may be for a gateway of a security policy. Only where both name gateways,
// and different ones, it is not.
func (in *Input) shares(o, c *object) bool {
	gateways := func(o *object) (names []string, certain bool) {
		refs := in.refs(o)
		for _, r := range refs {
			if r.at("name").text() == "" {
				return nil, false
			}
			if r.at("kind").text() == "Gateway" {
				names = append(names, o.namespace+"/"+r.at("name").text())
				continue
			}
			route := in.objectCalled(gatewayGroup, r.at("kind").text(), o.namespace, r.at("name").text())
			if route == nil {
				return nil, false
			}
			for _, p := range route.at("spec", "parentRefs").items() {
				ns := p.at("namespace").text()
				if ns == "" {
					ns = route.namespace
				}
				names = append(names, ns+"/"+p.at("name").text())
			}
		}
		return names, len(refs) > 0
	}
	theirs, sure := gateways(o)
	here, sureToo := gateways(c)
	return !sure || !sureToo || slices.ContainsFunc(here, func(name string) bool { return slices.Contains(theirs, name) })
}

func egPaths(in *Input, report func(Finding)) {
	for _, o := range in.objectsOf(egGroup, "ClientTrafficPolicy") {
		if at := o.at("spec", "path", "disableMergeSlashes"); at.truthy() {
			f := at.says("//admin is not /admin to the routes, though it is to many services")
			f.Severity, f.Remedy = Warning, "Remove disableMergeSlashes."
			report(f)
		}
		if at := o.at("spec", "path", "escapedSlashesAction"); at.text() == "KeepUnchanged" {
			f := at.says("/a%%2fadmin is not /a/admin to the routes, though it is to many services")
			f.Severity, f.Remedy = Warning, "Use UnescapeAndRedirect."
			report(f)
		}
	}
}

func egUnderscores(in *Input, report func(Finding)) {
	for _, o := range in.objectsOf(egGroup, "ClientTrafficPolicy") {
		if at := o.at("spec", "headers", "withUnderscoresAction"); at.text() == "Allow" {
			f := at.says("x_tollkeeper_account passes, which CGI, WSGI and others cannot tell from x-tollkeeper-account")
			f.Remedy = "Remove withUnderscoresAction: such requests are rejected then."
			report(f)
		}
	}
}
