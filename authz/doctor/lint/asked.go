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
			for _, m := range e.managers {
				askedOf(in, m, report)
			}
			in.aroundOf(e, report)
		case len(e.listeners) == 0 && !e.dump:
			// a bootstrap that gets everything from a control plane
			f := e.says("there are no listeners in here to be judged")
			f.Severity, f.Mend = Info, askRunning
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

func askedOf(in *Input, m *manager, report func(Finding)) {
	asks := in.asksOf(m)
	if len(asks) == 0 {
		in.unaskedOf(m, report)
		return
	}
	names := make(map[string]bool)
	for _, a := range asks {
		if names[a.name] {
			report(a.says("there are several filters called %q: what a route says of one it says of all", a.name))
		}
		names[a.name] = true
		for _, before := range m.filters[:a.index] {
			if strings.HasSuffix(before.typeName, "filters.http.router.v3.Router") {
				report(a.says("the filter %q stands behind the router, which ends the chain: it is never asked", a.name))
			}
		}
	}
	for _, u := range m.upgrades {
		if len(in.ours(u.asks)) == 0 && m.upgradable(u.kind) {
			report(u.says("requests to upgrade to %s go through filters of their own, and nobody is asked there", u.kind))
		}
	}
}

// unaskedOf judges a manager that asks nobody, in an Envoy that asks elsewhere.
func (in *Input) unaskedOf(m *manager, report func(Finding)) {
	if m.outbound() || slices.Contains(in.opt.Unchecked, m.listener.GetName()) {
		return
	}
	f := m.at("http_filters").says("requests come in here and go to an upstream, and nobody is asked, though another listener asks")
	if m.hidden {
		f.Severity = Warning
		report(f)
		return
	}
	worst := Finding{Severity: Info}
	guarded := in.guarded(m.envoy)
	var open []string
	for _, w := range m.ways() {
		if !w.upstream() || in.accepted(&w) {
			continue
		}
		open = append(open, w.matches())
		if s := w.unaskedSeverity(guarded, m.listener); s.rank() > worst.Severity.rank() {
			worst.Severity = s
		}
	}
	if len(open) > 0 {
		f.Severity = worst.Severity
		f.Wrong += ": " + some(open)
		report(f)
	}
}

// unaskedSeverity is how bad it is that a route leads to an upstream of a listener that asks nobody. It may be meant if
// clients from outside cannot get there, or if no upstream is reached that is behind a check elsewhere.
func (w *way) unaskedSeverity(guarded map[string]bool, l *listenerv3.Listener) Severity {
	var f Finding
	w.grade(&f)
	switch {
	case f.Severity == Info:
		return Info
	case inside(l), !slices.ContainsFunc(w.clusters(), func(name string) bool { return name == "" || guarded[name] }):
		return Warning
	}
	return Error
}

// inside reports whether a listener takes connections only from this machine, or from Envoy itself.
func inside(l *listenerv3.Listener) bool {
	a := l.GetAddress()
	return l.GetInternalListener() != nil || a.GetPipe() != nil || a.GetEnvoyInternalAddress() != nil || loopback(a.GetSocketAddress().GetAddress())
}

// guarded are the clusters of an Envoy to which routes lead on which Tollkeeper is asked.
func (in *Input) guarded(e *envoy) map[string]bool {
	out := make(map[string]bool)
	for _, m := range e.managers {
		if len(in.asksOf(m)) == 0 {
			continue
		}
		for _, w := range m.ways() {
			if !w.upstream() {
				continue
			}
			for _, name := range w.clusters() {
				out[name] = true
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
func (in *Input) aroundOf(e *envoy, report func(Finding)) {
	guarded := in.guarded(e)
	for _, p := range e.tcp {
		for _, name := range p.clusters {
			if name != "" && guarded[name] && isEdge(p.listener) && !slices.Contains(in.opt.Unchecked, p.listener.GetName()) {
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
