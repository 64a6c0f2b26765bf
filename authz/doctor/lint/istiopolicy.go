package lint

import (
	"slices"
	"strings"
	"time"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
)

// The rules of this file look at Istio's authorization policies, and at how the mesh reaches Tollkeeper.

// waypoint reports whether a policy is for a waypoint, which EnvoyFilters do not reach.
func (in *Input) waypoint(o *object) bool {
	for _, ref := range targets(o) {
		switch ref.at("kind").text() {
		case "Service", "ServiceEntry":
			return true
		case "Gateway":
			g := in.objectCalled("gateway.networking.k8s.io", "Gateway", o.namespace, ref.at("name").text())
			if g != nil && g.at("spec", "gatewayClassName").text() == "istio-waypoint" {
				return true
			}
		}
	}
	return false
}

// targets are what a policy is attached to.
func targets(o *object) []spot {
	out := o.at("spec", "targetRefs").items()
	if one := o.at("spec", "targetRef"); one.is {
		out = append(out, one)
	}
	return out
}

func istioStripped(in *Input, report func(Finding)) {
	byPatch, policies := in.strippedByPatch(), in.inForce()
	for _, o := range policies {
		if slices.ContainsFunc(o.at("spec", "rules").items(), coversAll) {
			continue // Tollkeeper sees every request and does it
		}
		f := o.at("spec").says("no EnvoyFilter takes x-tollkeeper-* of clients away: on paths that the policy leaves out your service believes them")
		f.Severity = Warning
		f.Remedy = "Add an EnvoyFilter that inserts a header_mutation filter before ext_authz with remove_on_match for the prefix x-tollkeeper-."
		if in.waypoint(o.object) {
			if open, judged := in.holesOf(o, policies); len(open) == 0 && judged {
				continue
			}
			f.Wrong = "no EnvoyFilter reaches a waypoint to take x-tollkeeper-* of clients away: on what the policy leaves out your service believes them"
			f.Remedy = "Check every request with rules: [{}], and let policies of Tollkeeper allow what is public."
		} else if byPatch {
			continue
		}
		report(f)
	}
}

// coversAll reports whether a rule takes every request.
func coversAll(rule spot) bool {
	return !rule.at("from").is && !rule.at("to").is && !rule.at("when").is
}

func istioHardened(in *Input, report func(Finding)) {
	if slices.ContainsFunc(in.filterPatches(), func(p patch) bool { _, ok := p.msg.(*extauthzv3.ExtAuthz); return ok }) {
		return
	}
	for _, o := range in.customs() {
		if !in.waypoint(o) {
			report(o.at("spec").says("no EnvoyFilter hardens the filter that istiod makes"))
		}
	}
}

// neverAsked: a policy without rules matches nothing.
func neverAsked(in *Input, report func(Finding)) {
	for _, o := range in.customs() {
		if len(o.at("spec", "rules").items()) == 0 {
			report(o.at("spec", "rules").says("the policy has no rules, so that it matches no request and nobody is asked"))
		}
	}
}

// anyOptions: a way around the check for whoever uses the method OPTIONS.
func anyOptions(in *Input, report func(Finding)) {
	for _, o := range in.customs() {
		rules := o.at("spec", "rules").items()
		if len(rules) == 0 || slices.ContainsFunc(rules, coversOptions) {
			continue
		}
		report(o.at("spec", "rules").says("every request with the method OPTIONS passes unchecked, be it a preflight or not"))
	}
}

func coversOptions(rule spot) bool {
	to := rule.at("to").items()
	if len(to) == 0 {
		return true
	}
	return slices.ContainsFunc(to, func(t spot) bool {
		op := t.at("operation")
		holds := func(list string) bool {
			return slices.ContainsFunc(op.at(list).items(), func(m spot) bool { return m.text() == "OPTIONS" || m.text() == "*" })
		}
		return !holds("notMethods") && (!op.at("methods").is || holds("methods"))
	})
}

// unverified: a CUSTOM policy runs before tokens are verified.
func unverified(in *Input, report func(Finding)) {
	for _, o := range in.customs() {
		for _, rule := range o.at("spec", "rules").items() {
			for _, w := range rule.at("when").items() {
				if key := w.at("key").text(); strings.HasPrefix(key, "request.auth.") {
					report(w.at("key").says("%s is not known yet: checks come before tokens are verified", key))
				}
			}
			for _, from := range rule.at("from").items() {
				for _, list := range []string{"requestPrincipals", "notRequestPrincipals"} {
					if at := from.at("source", list); at.is {
						report(at.says("%s are not known yet: checks come before tokens are verified", list))
					}
				}
			}
		}
	}
}

// rivals: a workload for which two are to be asked.
func rivals(in *Input, report func(Finding)) {
	customs := in.customs()
	for i, a := range customs {
		for _, b := range customs[:i] {
			if a.at("spec", "provider", "name").text() != b.at("spec", "provider", "name").text() && overlap(a, b) {
				report(a.at("spec", "provider").says("%s asks another provider for the same workloads: istiod denies everything", b.object))
			}
		}
	}
}

// rootNamespace is where policies for the whole mesh stand, unless the mesh says otherwise.
const rootNamespace = "istio-system"

// overlap reports whether two policies surely cover a workload together.
func overlap(a, b *object) bool {
	if a.namespace != b.namespace && a.namespace != rootNamespace && b.namespace != rootNamespace {
		return false
	}
	ta, tb := targets(a), targets(b)
	if len(ta) > 0 || len(tb) > 0 {
		return a.namespace == b.namespace && slices.ContainsFunc(ta, func(x spot) bool {
			return slices.ContainsFunc(tb, func(y spot) bool {
				return x.at("kind").text() == y.at("kind").text() && x.at("name").text() == y.at("name").text()
			})
		})
	}
	within := func(x, y spot) bool { // all labels of x are in y
		for _, k := range x.keys() {
			if y.key(k).text() != x.key(k).text() {
				return false
			}
		}
		return true
	}
	la, lb := a.at("spec", "selector", "matchLabels"), b.at("spec", "selector", "matchLabels")
	return within(la, lb) || within(lb, la)
}

// ambient: where there is no proxy that could ask.
func ambient(in *Input, report func(Finding)) {
	for _, o := range in.customs() {
		ns := in.objectNamed("", "Namespace", o.namespace)
		if ns == nil || ns.meta("labels", "istio.io/dataplane-mode") != "ambient" || len(targets(o)) > 0 {
			continue
		}
		selector := o.at("spec", "selector")
		labels := selector.at("matchLabels")
		if labels.key("gateway.networking.k8s.io/gateway-name").is || strings.Contains(labels.key("istio").text(), "gateway") {
			continue
		}
		report(selector.says("the namespace is in ambient mode, where ztunnel does not ask: requests pass unchecked"))
	}
}

// objectNamed finds an object that has no namespace.
func (in *Input) objectNamed(group, kind, name string) *object {
	for _, o := range in.objectsOf(group, kind) {
		if o.name == name {
			return o
		}
	}
	return nil
}

// destinationRule is that of a provider's service, nil if the files hold none.
func (in *Input) destinationRule(host string) *object {
	short := func(h string) string { return strings.TrimSuffix(strings.TrimSuffix(h, ".cluster.local"), ".svc") }
	for _, o := range in.objectsOf("networking.istio.io", "DestinationRule") {
		h := short(o.at("spec", "host").text())
		if h == short(host) || h+"."+o.namespace == short(host) {
			return o
		}
	}
	return nil
}

const istioConnect = 10 * time.Second

func istioConnects(in *Input, report func(Finding)) {
	for _, p := range in.providers() {
		o := in.destinationRule(p.host())
		wait, ok := p.timeout()
		if !ok {
			wait = maxCheck
		}
		const mend = "Set trafficPolicy.connectionPool.tcp.connectTimeout: 100ms in a DestinationRule for the service."
		if o == nil {
			f := p.grpc.at("service").says("no DestinationRule is here for %s: connecting may take %v, and a check only %v", p.host(), istioConnect, wait)
			f.Severity, f.Remedy = Info, mend
			report(f)
			continue
		}
		at := o.at("spec", "trafficPolicy", "connectionPool", "tcp", "connectTimeout")
		connect, err := time.ParseDuration(at.text())
		if err != nil {
			connect = istioConnect
		}
		if connect >= wait {
			f := at.says("connecting may take %v and a check only %v: a host that does not answer costs whole checks", connect, wait)
			f.Remedy = mend
			report(f)
		}
	}
}

func istioBreakers(in *Input, report func(Finding)) {
	for _, p := range in.providers() {
		if o := in.destinationRule(p.host()); o != nil {
			at := o.at("spec", "trafficPolicy", "connectionPool", "http", "http2MaxRequests")
			if n := at.text(); at.is && number(n) <= defaultMaxRequests {
				f := at.says("more than %s checks at a time are refused, which is an outage at the first burst", n)
				f.Remedy = "Set http2MaxRequests to more than you will ever need, such as 10000."
				report(f)
			}
		}
	}
}

func istioClear(in *Input, report func(Finding)) {
	for _, p := range in.providers() {
		o := in.destinationRule(p.host())
		if o == nil {
			continue // the mesh encrypts by itself where both ends can
		}
		at := o.at("spec", "trafficPolicy", "tls")
		if at.at("mode").text() == "DISABLE" {
			f := at.at("mode").says("checks, with the credentials in them, cross the network in the clear")
			f.Severity, f.Remedy = Warning, "Use ISTIO_MUTUAL if Tollkeeper is in the mesh, and MUTUAL or SIMPLE with its own TLS if it is not."
			report(f)
		}
		if m := at.at("mode").text(); (m == "SIMPLE" || m == "MUTUAL") && (at.at("insecureSkipVerify").truthy() || !at.at("subjectAltNames").is) {
			f := at.says("whoever answers with a certificate of the CA is believed")
			f.Severity, f.Remedy = Warning, "Name Tollkeeper's certificate in subjectAltNames, and do not skip verification."
			report(f)
		}
	}
}
