package lint

import (
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
)

// The rules of this file look for ways in on which nobody is asked.

const askRunning = "Give the configuration dump of the running Envoy as well: tollkeeper doctor envoy --admin http://127.0.0.1:9901."

// asked: every way in has a filter that asks, before the router.
func asked(in *Input, report func(Finding)) {
	anybody := len(in.asks()) > 0
	for _, e := range in.envoys {
		asks, open := 0, false
		for _, m := range e.managers {
			asks += len(in.asksOf(m))
			open = open || m.open()
		}
		switch {
		case asks > 0:
			guarded := in.guarded(e)
			for _, m := range e.managers {
				askedOf(in, m, guarded, report)
			}
			in.aroundOf(e, guarded, report)
		case len(e.listeners) == 0 && !e.dump:
			// a bootstrap that gets everything from a control plane
			f := e.says("there are no listeners in here to be judged")
			f.Severity, f.Remedy = Info, askRunning
			report(f)
		case !anybody:
			report(e.says("no listener asks %s", in.authorizer()))
		case open: // it may be one that stands behind the other
			f := e.says("no listener of this Envoy asks %s, though another Envoy does", in.authorizer())
			f.Severity = Info
			report(f)
		}
	}
}

func (in *Input) authorizer() string {
	if in.opt.Cluster != "" {
		return "the cluster " + in.opt.Cluster + ": no ext_authz filter names it"
	}
	return "an authorizer: there is no ext_authz filter"
}

func askedOf(in *Input, m *manager, guarded upstreams, report func(Finding)) {
	asks := in.asksOf(m)
	if len(asks) == 0 {
		in.unaskedOf(m, guarded, report)
		return
	}
	inOrder(m.chain, asks, report)
	for _, u := range m.upgrades {
		if asks := in.ours(u.asks); len(asks) > 0 {
			inOrder(u.chain, asks, report)
		} else if m.upgradable(u.kind) {
			report(u.says("requests to upgrade to %s go through filters of their own, and nobody is asked there", u.kind))
		}
	}
}

// inOrder: the filters of a chain that ask have names of their own, and stand before the router.
func inOrder(c chain, asks []*authzFilter, report func(Finding)) {
	names := make(map[string]bool)
	for _, a := range asks {
		if names[a.name] {
			report(a.says("there are several filters called %q: what a route says of one it says of all", a.name))
		}
		names[a.name] = true
		for _, before := range c.filters[:a.index] {
			if strings.HasSuffix(before.typeName, "filters.http.router.v3.Router") {
				report(a.says("the filter %q stands behind the router, which ends the chain: it is never asked", a.name))
			}
		}
	}
}

// unaskedOf judges a manager that asks nobody, in an Envoy that asks elsewhere.
func (in *Input) unaskedOf(m *manager, guarded upstreams, report func(Finding)) {
	if m.outbound() || slices.Contains(in.opt.Unchecked, m.listener.GetName()) {
		return
	}
	f := m.at("http_filters").says("requests come in here and go to an upstream, and nobody is asked, though another listener asks")
	if m.hidden {
		f.Severity = Warning
		report(f)
		return
	}
	worst := Info
	var open []string
	for _, w := range m.ways() {
		if !w.upstream() || in.accepted(&w) {
			continue
		}
		open = append(open, w.matches())
		if s := m.unaskedSeverity(&w, guarded); s.rank() > worst.rank() {
			worst = s
		}
	}
	if len(open) > 0 {
		f.Severity = worst
		f.Wrong += ": " + some(open)
		report(f)
	}
}

// unaskedSeverity is how bad it is that a route leads to an upstream of a listener that asks nobody. It may be meant if
// clients from outside cannot get there, or if no upstream is reached that is behind a check elsewhere.
func (m *manager) unaskedSeverity(w *way, guarded upstreams) Severity {
	var f Finding
	w.grade(&f)
	switch {
	case f.Severity == Info:
		return Info
	case inside(m.listener), !slices.ContainsFunc(w.clusters(), func(name string) bool { return name == "" || guarded.has(m.envoy, name) }):
		return Warning
	}
	return Error
}

// inside reports whether a listener takes connections only from this machine, or from Envoy itself.
func inside(l *listenerv3.Listener) bool {
	a := l.GetAddress()
	return l.GetInternalListener() != nil || a.GetPipe() != nil || a.GetEnvoyInternalAddress() != nil || loopback(a.GetSocketAddress().GetAddress())
}

// upstreams are names of clusters and addresses of hosts: two clusters may have the same hosts.
type upstreams map[string]bool

// guarded are the upstreams of an Envoy to which routes lead on which Tollkeeper is asked.
func (in *Input) guarded(e *envoy) upstreams {
	out := make(upstreams)
	for _, m := range e.managers {
		if len(in.asksOf(m)) == 0 {
			continue
		}
		for _, w := range m.ways() {
			if !w.upstream() || in.unasked(m, &w) {
				continue
			}
			for _, name := range w.clusters() {
				if out[name] {
					continue
				}
				for _, known := range e.knownAs(name) {
					out[known] = true
				}
			}
		}
	}
	return out
}

func (u upstreams) has(e *envoy, name string) bool {
	return slices.ContainsFunc(e.knownAs(name), func(known string) bool { return u[known] })
}

// knownAs are the name of a cluster and the addresses of its hosts.
func (e *envoy) knownAs(name string) []string {
	out := []string{name}
	c, _ := e.cluster(name)
	for _, l := range c.msg.GetLoadAssignment().GetEndpoints() {
		for _, host := range l.GetLbEndpoints() {
			if a := host.GetEndpoint().GetAddress(); a != nil {
				out = append(out, a.String())
			}
		}
	}
	return out
}

// clusters are those that a route may choose. One that the request names, or a plugin, is unknown, which is "".
func (w *way) clusters() []string {
	weighted := w.route.GetRoute().GetWeightedClusters().GetClusters()
	if len(weighted) == 0 {
		return []string{w.route.GetRoute().GetCluster()}
	}
	var out []string
	for _, c := range weighted {
		out = append(out, c.GetName())
	}
	return out
}

// upgradable reports whether a protocol is spoken here or on any route.
func (m *manager) upgradable(kind string) bool {
	for _, u := range m.msg.GetUpgradeConfigs() {
		if u.GetUpgradeType() == kind && (u.GetEnabled() == nil || u.GetEnabled().GetValue()) {
			return true
		}
	}
	for _, w := range m.ways() {
		for _, u := range w.route.GetRoute().GetUpgradeConfigs() {
			if strings.EqualFold(u.GetUpgradeType(), kind) && (u.GetEnabled() == nil || u.GetEnabled().GetValue()) {
				return true
			}
		}
	}
	return m.hidden
}

// aroundOf finds listeners that pass bytes on to an upstream that is behind a check elsewhere.
func (in *Input) aroundOf(e *envoy, guarded upstreams, report func(Finding)) {
	for _, p := range e.tcp {
		for _, name := range p.clusters {
			if name != "" && guarded.has(e, name) && isEdge(p.listener) && !slices.Contains(in.opt.Unchecked, p.listener.GetName()) {
				f := p.says("connections are passed on to %s whatever they carry, and nobody is asked, though another listener asks", name)
				f.Severity = Warning
				report(f)
			}
		}
	}
}

// open reports whether requests get to an upstream.
func (m *manager) open() bool {
	return m.hidden || slices.ContainsFunc(m.ways(), func(w way) bool { return w.upstream() })
}
