package lint

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
)

// manager is an HTTP connection manager: where HTTP comes in.
type manager struct {
	spot
	envoy    *envoy
	listener *listenerv3.Listener
	msg      *hcmv3.HttpConnectionManager
	chain
	upgrades []upgrade
	tables   []part[*routev3.RouteConfiguration]
	found    []way // all routes of the tables
	hidden   bool  // there are routes that the file does not hold
}

// chain is what requests go through.
type chain struct {
	filters []httpFilter
	asks    []*authzFilter // the ext_authz filters among them
}

// upgrade is the chain of requests that ask for another protocol, where they have one of their own.
type upgrade struct {
	spot
	chain
	kind string
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

// tcpProxy is where connections come in that are passed on whatever they carry.
type tcpProxy struct {
	spot
	listener *listenerv3.Listener
	clusters []string
}

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
		at := s.at("filters").index(i).at("typed_config").called("%s", l.object)
		switch msg, typeName := unpack(f.GetTypedConfig()); msg := msg.(type) {
		case *hcmv3.HttpConnectionManager:
			m := &manager{spot: at, envoy: e, listener: l.msg, msg: msg}
			m.chain = m.linkFilters(m.at("http_filters"), msg.GetHttpFilters())
			m.linkUpgrades()
			m.linkRoutes()
			m.linkWays()
			e.managers = append(e.managers, m)
		case *tcpv3.TcpProxy:
			p := tcpProxy{spot: at, listener: l.msg, clusters: []string{msg.GetCluster()}}
			for _, c := range msg.GetWeightedClusters().GetClusters() {
				p.clusters = append(p.clusters, c.GetName())
			}
			e.tcp = append(e.tcp, p)
		default:
			if strings.HasSuffix(typeName, "filters.network.ext_authz.v3.ExtAuthz") {
				return // it asks for every connection
			}
		}
	}
}

func (m *manager) linkFilters(at spot, filters []*hcmv3.HttpFilter) (c chain) {
	for i, f := range filters {
		s := at.index(i).at("typed_config").called("%s, filter %q", m.object, f.GetName())
		msg, typeName := unpack(f.GetTypedConfig())
		hf := httpFilter{spot: s, name: f.GetName(), disabled: f.GetDisabled(), typeName: typeName, msg: msg}
		c.filters = append(c.filters, hf)
		if authz, ok := msg.(*extauthzv3.ExtAuthz); ok {
			c.asks = append(c.asks, &authzFilter{httpFilter: hf, manager: m, index: i, authz: authz, cluster: askedCluster(authz.GetGrpcService(), authz.GetHttpService())})
		}
	}
	return c
}

// linkUpgrades finds the chains of upgrades. One without filters goes through those of the manager.
func (m *manager) linkUpgrades() {
	for i, u := range m.msg.GetUpgradeConfigs() {
		if len(u.GetFilters()) > 0 {
			at := m.at("upgrade_configs").index(i).at("filters")
			m.upgrades = append(m.upgrades, upgrade{at, m.linkFilters(at, u.GetFilters()), u.GetUpgradeType()})
		}
	}
}

func askedCluster(grpc *corev3.GrpcService, http *extauthzv3.HttpService) string {
	if name := grpc.GetEnvoyGrpc().GetClusterName(); name != "" {
		return name
	}
	return http.GetServerUri().GetCluster()
}

func (m *manager) linkRoutes() {
	scopes := m.msg.GetScopedRoutes().GetScopedRouteConfigurationsList()
	switch {
	case m.msg.GetRouteConfig() != nil:
		m.tables = append(m.tables, part[*routev3.RouteConfiguration]{m.at("route_config"), m.msg.GetRouteConfig()})
	case scopes != nil:
		at := m.at("scoped_routes", "scoped_route_configurations_list", "scoped_route_configurations")
		for i, s := range scopes.GetScopedRouteConfigurations() {
			if rc := s.GetRouteConfiguration(); rc != nil {
				m.tables = append(m.tables, part[*routev3.RouteConfiguration]{at.index(i).at("route_configuration"), rc})
				continue
			}
			m.linkTable(s.GetRouteConfigurationName())
		}
	default:
		m.linkTable(m.msg.GetRds().GetRouteConfigName())
	}
}

// linkTable finds routes that came by themselves.
func (m *manager) linkTable(name string) {
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
func (m *manager) ways() []way { return m.found }

func (m *manager) linkWays() {
	for _, t := range m.tables {
		m.hidden = m.hidden || t.msg.GetVhds() != nil
		for i, vh := range t.msg.GetVirtualHosts() {
			host := t.at("virtual_hosts").index(i)
			add := func(s spot, r *routev3.Route) {
				w := way{spot: s, table: t.msg, host: vh, route: r, above: []spot{t.spot, host}}
				w.spot = w.called("%s, route %s", t.object, w.matches())
				m.found = append(m.found, w)
			}
			for j, r := range vh.GetRoutes() {
				add(host.at("routes").index(j), r)
			}
			if vh.GetMatcher() != nil {
				matchedRoutes(host.at("matcher"), add)
			}
		}
	}
}

// matchedRoutes finds the routes in a matcher, which are its actions.
func matchedRoutes(at spot, add func(spot, *routev3.Route)) {
	name := at.at(typeKey).text()
	if strings.HasSuffix(name, "config.route.v3.Route") {
		if r, _ := decode(at, &routev3.Route{}); r != nil {
			add(at, r)
		}
		return
	}
	if strings.HasSuffix(name, "config.route.v3.RouteList") {
		for _, item := range at.at("routes").items() {
			if r, _ := decode(item, &routev3.Route{}); r != nil {
				add(item, r)
			}
		}
		return
	}
	for _, k := range at.keys() {
		matchedRoutes(at.key(k), add)
	}
	for _, item := range at.items() {
		matchedRoutes(item, add)
	}
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

// edge reports whether clients from outside come in here, as far as one can tell.
func (m *manager) edge() bool { return isEdge(m.listener) }

func isEdge(l *listenerv3.Listener) bool {
	return l.GetTrafficDirection() == corev3.TrafficDirection_UNSPECIFIED
}

// outbound reports whether this is a sidecar's way out.
func (m *manager) outbound() bool {
	return m.listener.GetTrafficDirection() == corev3.TrafficDirection_OUTBOUND
}
