package lint

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// manager is an HTTP connection manager: where HTTP comes in.
type manager struct {
	spot
	envoy    *envoy
	listener *listenerv3.Listener
	msg      *hcmv3.HttpConnectionManager
	filters  []httpFilter
	asks     []*authzFilter // the ext_authz filters among them
	tables   []part[*routev3.RouteConfiguration]
	hidden   bool // there are routes that the file does not hold
}

// httpFilter is one of its filters.
type httpFilter struct {
	spot
	name     string
	disabled bool          // unless a route turns it on
	typeName string        // of its configuration
	msg      proto.Message // nil if opaque
}

// authzFilter is a filter that asks an authorizer.
type authzFilter struct {
	httpFilter
	manager *manager
	index   int
	authz   *extauthzv3.ExtAuthz
	cluster string // "" if it names none
}

const authzType = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"

// link finds the managers in the listeners, and their routes.
func (e *envoy) link() {
	for _, l := range e.listeners {
		chains := l.at("filter_chains")
		for i, c := range l.msg.GetFilterChains() {
			e.linkChain(l, chains.index(i), c)
		}
		if c := l.msg.GetDefaultFilterChain(); c != nil {
			e.linkChain(l, l.at("default_filter_chain"), c)
		}
	}
}

func (e *envoy) linkChain(l part[*listenerv3.Listener], s spot, chain *listenerv3.FilterChain) {
	for i, f := range chain.GetFilters() {
		msg, _ := unpack(f.GetTypedConfig())
		if hcm, ok := msg.(*hcmv3.HttpConnectionManager); ok {
			m := &manager{spot: s.at("filters").index(i).at("typed_config").called("%s", l.object), envoy: e, listener: l.msg, msg: hcm}
			m.linkFilters()
			m.linkRoutes()
			e.managers = append(e.managers, m)
		}
	}
}

func (m *manager) linkFilters() {
	for i, f := range m.msg.GetHttpFilters() {
		s := m.at("http_filters").index(i).at("typed_config").called("%s, filter %q", m.object, f.GetName())
		msg, typeName := unpack(f.GetTypedConfig())
		hf := httpFilter{spot: s, name: f.GetName(), disabled: f.GetDisabled(), typeName: typeName, msg: msg}
		m.filters = append(m.filters, hf)
		if authz, ok := msg.(*extauthzv3.ExtAuthz); ok {
			m.asks = append(m.asks, &authzFilter{httpFilter: hf, manager: m, index: i, authz: authz, cluster: askedCluster(authz)})
		}
	}
}

func askedCluster(a *extauthzv3.ExtAuthz) string {
	if name := a.GetGrpcService().GetEnvoyGrpc().GetClusterName(); name != "" {
		return name
	}
	return a.GetHttpService().GetServerUri().GetCluster()
}

func (m *manager) linkRoutes() {
	if rc := m.msg.GetRouteConfig(); rc != nil {
		m.tables = append(m.tables, part[*routev3.RouteConfiguration]{m.at("route_config"), rc})
		return
	}
	name := m.msg.GetRds().GetRouteConfigName()
	for _, r := range m.envoy.routes {
		if name != "" && r.msg.GetName() == name {
			m.tables = append(m.tables, r)
			return
		}
	}
	m.hidden = true
}

// way is a route on its way down from its table.
type way struct {
	spot
	table *routev3.RouteConfiguration
	host  *routev3.VirtualHost
	route *routev3.Route
	above []spot // of the table and the virtual host
}

// ways are all routes that the file holds.
func (m *manager) ways() []way {
	var out []way
	for _, t := range m.tables {
		for i, vh := range t.msg.GetVirtualHosts() {
			host := t.at("virtual_hosts").index(i)
			for j, r := range vh.GetRoutes() {
				w := way{spot: host.at("routes").index(j), table: t.msg, host: vh, route: r, above: []spot{t.spot, host}}
				w.spot = w.called("%s, route %s", t.object, w.matches())
				out = append(out, w)
			}
		}
	}
	return out
}

// upstream reports whether a route leads to an upstream, and not to an answer of Envoy's own.
func (w *way) upstream() bool {
	return w.route.GetDirectResponse() == nil && w.route.GetRedirect() == nil
}

// matches says in words what a route matches.
func (w *way) matches() string {
	switch m := w.route.GetMatch(); {
	case m.GetPath() != "":
		return m.GetPath()
	case m.GetPrefix() != "":
		return m.GetPrefix() + "*"
	case m.GetPathSeparatedPrefix() != "":
		return m.GetPathSeparatedPrefix() + "/*"
	case m.GetSafeRegex() != nil:
		return "regex " + m.GetSafeRegex().GetRegex()
	}
	return "a route"
}

// setting is what a route, or something above it, says of a filter.
type setting int

const (
	unset setting = iota
	on
	off
)

// settingOf reads typed_per_filter_config.
func settingOf(per map[string]*anypb.Any, filter string) setting {
	a, ok := per[filter]
	if !ok {
		return unset
	}
	msg, _ := unpack(a)
	if wrapped, ok := msg.(*routev3.FilterConfig); ok {
		if wrapped.GetDisabled() {
			return off
		}
		if msg, _ = unpack(wrapped.GetConfig()); msg == nil {
			return on
		}
	}
	if p, ok := msg.(*extauthzv3.ExtAuthzPerRoute); ok && p.GetDisabled() {
		return off
	}
	return on
}

// settings returns what counts for a filter on a route, and where it is said. The most specific level counts.
func (w *way) setting(filter string) (setting, spot) {
	const field = "typed_per_filter_config"
	if s := settingOf(w.route.GetTypedPerFilterConfig(), filter); s != unset {
		return s, w.at(field).key(filter)
	}
	if s := settingOf(w.host.GetTypedPerFilterConfig(), filter); s != unset {
		return s, w.above[1].at(field).key(filter)
	}
	if s := settingOf(w.table.GetTypedPerFilterConfig(), filter); s != unset {
		return s, w.above[0].at(field).key(filter)
	}
	return unset, w.spot
}

// edge reports whether clients from outside come in here, as far as one can tell.
func (m *manager) edge() bool {
	return m.listener.GetTrafficDirection() == corev3.TrafficDirection_UNSPECIFIED
}

// outbound reports whether this is a sidecar's way out.
func (m *manager) outbound() bool {
	return m.listener.GetTrafficDirection() == corev3.TrafficDirection_OUTBOUND
}
