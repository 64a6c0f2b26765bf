package model

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// Manager is an HTTP connection manager, which accepts HTTP requests.
type Manager struct {
	source.Location
	Envoy    *Envoy
	Listener *listenerv3.Listener
	Msg      *hcmv3.HttpConnectionManager
	Chain
	Upgrades []Upgrade
	Routes   []Route // in the files
	Hidden   bool    // there are other routes, which are not in the files
}

// Chain is a chain of HTTP filters.
type Chain struct {
	Filters []HTTPFilter
	Checks  []*ExtAuthz // filters that ask Tollkeeper
}

// Upgrade is a chain of its own for requests that upgrade to another protocol.
type Upgrade struct {
	source.Location
	Chain
	Kind string
}

// HTTPFilter is a filter of a chain.
type HTTPFilter struct {
	source.Location // of its configuration
	Name            string
	Disabled        bool          // unless a route turns it on
	TypeName        string        // of its configuration
	Msg             proto.Message // nil if the type is opaque
}

// TCPProxy forwards connections without reading requests.
type TCPProxy struct {
	source.Location
	Listener *listenerv3.Listener
	Clusters []string
}

func (e *Envoy) readListener(l Part[*listenerv3.Listener]) {
	chains := l.At("filter_chains")
	for i, c := range l.Msg.GetFilterChains() {
		e.readChain(l, chains.Index(i), c)
	}
	if c := l.Msg.GetDefaultFilterChain(); c != nil {
		e.readChain(l, l.At("default_filter_chain"), c)
	}
}

func (e *Envoy) readChain(l Part[*listenerv3.Listener], at source.Location, chain *listenerv3.FilterChain) {
	for i, f := range chain.GetFilters() {
		at := at.At("filters").Index(i).At("typed_config").Called("%s", l.Object())
		switch msg, typeName := Unpack(f.GetTypedConfig()); msg := msg.(type) {
		case *hcmv3.HttpConnectionManager:
			e.Managers = append(e.Managers, e.readManager(at, l.Msg, msg))
		case *tcpv3.TcpProxy:
			p := TCPProxy{at, l.Msg, []string{msg.GetCluster()}}
			for _, c := range msg.GetWeightedClusters().GetClusters() {
				p.Clusters = append(p.Clusters, c.GetName())
			}
			e.TCP = append(e.TCP, p)
		default:
			if strings.HasSuffix(typeName, "filters.network.ext_authz.v3.ExtAuthz") {
				return // the chain asks Tollkeeper about every connection
			}
		}
	}
}

func (e *Envoy) readManager(at source.Location, listener *listenerv3.Listener, msg *hcmv3.HttpConnectionManager) *Manager {
	m := &Manager{Location: at, Envoy: e, Listener: listener, Msg: msg}
	m.Chain = e.readFilters(m, m.At("http_filters"), msg.GetHttpFilters())
	for i, u := range msg.GetUpgradeConfigs() {
		if len(u.GetFilters()) > 0 { // otherwise requests go through the manager's filters
			at := m.At("upgrade_configs").Index(i).At("filters")
			m.Upgrades = append(m.Upgrades, Upgrade{at, e.readFilters(m, at, u.GetFilters()), u.GetUpgradeType()})
		}
	}
	for _, t := range m.tables() {
		m.readRoutes(t)
	}
	return m
}

func (e *Envoy) readFilters(m *Manager, at source.Location, filters []*hcmv3.HttpFilter) (c Chain) {
	for i, f := range filters {
		at := at.Index(i).At("typed_config").Called("%s, filter %q", m.Object(), f.GetName())
		msg, typeName := Unpack(f.GetTypedConfig())
		filter := HTTPFilter{Location: at, Name: f.GetName(), Disabled: f.GetDisabled(), TypeName: typeName, Msg: msg}
		c.Filters = append(c.Filters, filter)
		if msg, ok := msg.(*extauthzv3.ExtAuthz); ok {
			cluster := askedCluster(msg.GetGrpcService(), msg.GetHttpService())
			if e.asked == "" || e.asked == cluster {
				check := newMessageCheck(ByFilter, at, msg)
				check.Manager, check.Filter, check.Index, check.Cluster = m, filter, i, cluster
				c.Checks = append(c.Checks, check)
			}
		}
	}
	return c
}

func askedCluster(grpc *corev3.GrpcService, http *extauthzv3.HttpService) string {
	if name := grpc.GetEnvoyGrpc().GetClusterName(); name != "" {
		return name
	}
	return http.GetServerUri().GetCluster()
}

// tables are the route tables of a manager.
func (m *Manager) tables() (out []Part[*routev3.RouteConfiguration]) {
	named := func(name string) {
		i := slices.IndexFunc(m.Envoy.routes, func(r Part[*routev3.RouteConfiguration]) bool { return name != "" && r.Msg.GetName() == name })
		if i < 0 {
			m.Hidden = true
			return
		}
		out = append(out, m.Envoy.routes[i])
	}
	scopes := m.Msg.GetScopedRoutes().GetScopedRouteConfigurationsList()
	switch {
	case m.Msg.GetRouteConfig() != nil:
		out = append(out, Part[*routev3.RouteConfiguration]{m.At("route_config"), m.Msg.GetRouteConfig()})
	case scopes != nil:
		at := m.At("scoped_routes.scoped_route_configurations_list.scoped_route_configurations")
		for i, s := range scopes.GetScopedRouteConfigurations() {
			if table := s.GetRouteConfiguration(); table != nil {
				out = append(out, Part[*routev3.RouteConfiguration]{at.Index(i).At("route_configuration"), table})
				continue
			}
			named(s.GetRouteConfigurationName())
		}
	default:
		named(m.Msg.GetRds().GetRouteConfigName())
	}
	return out
}

// Outbound reports whether the listener is for requests that leave a sidecar's workload.
func (m *Manager) Outbound() bool {
	return m.Listener.GetTrafficDirection() == corev3.TrafficDirection_OUTBOUND
}

// IsEdge reports whether a listener probably accepts clients from outside.
func IsEdge(l *listenerv3.Listener) bool {
	return l.GetTrafficDirection() == corev3.TrafficDirection_UNSPECIFIED
}

// IsInternal reports whether a listener accepts connections only from this machine, or from Envoy itself.
func IsInternal(l *listenerv3.Listener) bool {
	a := l.GetAddress()
	return l.GetInternalListener() != nil || a.GetPipe() != nil || a.GetEnvoyInternalAddress() != nil || Loopback(a.GetSocketAddress().GetAddress())
}

// Speaks reports whether upgrades to a protocol are enabled for the manager or for any route.
func (m *Manager) Speaks(kind string) bool {
	for _, u := range m.Msg.GetUpgradeConfigs() {
		if u.GetUpgradeType() == kind && (u.GetEnabled() == nil || u.GetEnabled().GetValue()) {
			return true
		}
	}
	for _, r := range m.Routes {
		for _, u := range r.Msg.GetRoute().GetUpgradeConfigs() {
			if strings.EqualFold(u.GetUpgradeType(), kind) && (u.GetEnabled() == nil || u.GetEnabled().GetValue()) {
				return true
			}
		}
	}
	return m.Hidden
}
