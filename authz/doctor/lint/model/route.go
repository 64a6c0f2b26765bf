package model

import (
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// Route is a route with its virtual host and route table.
type Route struct {
	source.Location
	Msg   *routev3.Route
	Host  Part[*routev3.VirtualHost]
	Table Part[*routev3.RouteConfiguration]
}

func (m *Manager) readRoutes(table Part[*routev3.RouteConfiguration]) {
	m.Hidden = m.Hidden || table.Msg.GetVhds() != nil
	for i, vh := range table.Msg.GetVirtualHosts() {
		host := Part[*routev3.VirtualHost]{table.At("virtual_hosts").Index(i), vh}
		add := func(at source.Location, msg *routev3.Route) {
			r := Route{Location: at, Msg: msg, Host: host, Table: table}
			r.Location = r.Called("%s, route %s", table.Object(), r.Matches())
			m.Routes = append(m.Routes, r)
		}
		for j, r := range vh.GetRoutes() {
			add(host.At("routes").Index(j), r)
		}
		if vh.GetMatcher() != nil {
			matchedRoutes(host.At("matcher"), add)
		}
	}
}

// matchedRoutes finds the routes in a matcher: they are its actions.
func matchedRoutes(at source.Location, add func(source.Location, *routev3.Route)) {
	var routes []source.Location
	switch name := at.At(source.TypeKey).Text(); {
	case strings.HasSuffix(name, "config.route.v3.Route"):
		routes = []source.Location{at}
	case strings.HasSuffix(name, "config.route.v3.RouteList"):
		routes = at.At("routes").Items()
	default:
		for _, below := range at.Below() {
			matchedRoutes(below, add)
		}
	}
	for _, at := range routes {
		if r, _ := decode(at, &routev3.Route{}); r != nil {
			add(at, r)
		}
	}
}

// ToUpstream reports whether a route leads to an upstream. On other routes Envoy answers itself.
func (r *Route) ToUpstream() bool {
	return r.Msg.GetDirectResponse() == nil && r.Msg.GetRedirect() == nil
}

// Matches describes in words which requests a route matches.
func (r *Route) Matches() string {
	switch m := r.Msg.GetMatch(); {
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

// IsMeant reports whether a route is open on purpose.
func (r *Route) IsMeant(opt *Options) bool {
	m := r.Msg.GetMatch()
	return slices.ContainsFunc([]string{
		m.GetPath(), m.GetPrefix(), m.GetPathSeparatedPrefix(), m.GetSafeRegex().GetRegex(), r.Msg.GetName(), r.Host.Msg.GetName(),
	}, opt.IsMeant)
}

// Clusters are the clusters that a route may choose. It is "" for a cluster that the request or a plugin chooses.
func (r *Route) Clusters() []string {
	weighted := r.Msg.GetRoute().GetWeightedClusters().GetClusters()
	if len(weighted) == 0 {
		return []string{r.Msg.GetRoute().GetCluster()}
	}
	var out []string
	for _, c := range weighted {
		out = append(out, c.GetName())
	}
	return out
}

// Tier is one of the levels that may configure a filter for a route.
type Tier struct {
	source.Location
	Per map[string]*Any
}

// Tiers are the tiers of a route, the most specific first.
func (r *Route) Tiers() []Tier {
	return []Tier{
		{r.Location, r.Msg.GetTypedPerFilterConfig()},
		{r.Host.Location, r.Host.Msg.GetTypedPerFilterConfig()},
		{r.Table.Location, r.Table.Msg.GetTypedPerFilterConfig()},
	}
}

// Branches are the tiers for each weighted cluster of a route. Each may have its own configuration.
func (r *Route) Branches() [][]Tier {
	clusters := r.Msg.GetRoute().GetWeightedClusters().GetClusters()
	if len(clusters) == 0 {
		return [][]Tier{r.Tiers()}
	}
	at := r.At("route.weighted_clusters.clusters")
	out := make([][]Tier, len(clusters))
	for i, c := range clusters {
		out[i] = append([]Tier{{at.Index(i), c.GetTypedPerFilterConfig()}}, r.Tiers()...)
	}
	return out
}

// Effect is the effect of the tiers of a route on a filter.
type Effect int

// The effects.
const (
	Unset Effect = iota
	On
	Off
	Elsewhere // the filter asks another authorizer
)

// Override is an effect and its location.
type Override struct {
	source.Location
	Effect Effect
	Asked  string // for Elsewhere: the cluster that the filter asks
}

// override finds the effect of the tiers on a filter. The most specific tier that names the filter decides whether it is in the
// chain. The most specific tier with a configuration decides what the filter does: an empty configuration turns the filter on,
// but a less specific tier may still disable the check.
func override(tiers []Tier, filter string) Override {
	var s Override
	for _, t := range tiers {
		packed, ok := t.Per[filter]
		if !ok {
			continue
		}
		at := t.At("typed_per_filter_config").Key(filter)
		msg, _ := Unpack(packed)
		if c, ok := msg.(*routev3.FilterConfig); ok {
			if c.GetDisabled() && s.Effect == Unset {
				return Override{Location: at, Effect: Off}
			}
			if msg = nil; !c.GetDisabled() {
				msg, _ = Unpack(c.GetConfig())
			}
		}
		if s.Effect == Unset {
			s = Override{Location: at, Effect: On}
		}
		if p, ok := msg.(*extauthzv3.ExtAuthzPerRoute); ok {
			return perRoute(at, p)
		}
	}
	return s
}

func perRoute(at source.Location, p *extauthzv3.ExtAuthzPerRoute) Override {
	grpc, http := p.GetCheckSettings().GetGrpcService(), p.GetCheckSettings().GetHttpService()
	switch {
	case p.GetDisabled():
		return Override{Location: at, Effect: Off}
	case grpc == nil && http == nil:
		return Override{Location: at, Effect: On}
	}
	s := Override{at, Elsewhere, askedCluster(grpc, http)}
	if s.Asked == "" {
		s.Asked = grpc.GetGoogleGrpc().GetTargetUri()
	}
	return s
}

// Unprotected returns the override that leaves a branch of a route unchecked, if no filter is on for it. If no tier configures the
// filters, it returns the fallback.
func (m *Model) Unprotected(checks []*ExtAuthz, tiers []Tier, fallback source.Location) (blame Override, ok bool) {
	for _, c := range checks {
		s := override(tiers, c.Filter.Name)
		switch {
		case s.Effect == On, s.Effect == Unset && !c.Filter.Disabled, s.Effect == Elsewhere && m.asksTollkeeper(s.Asked):
			return Override{}, false
		case s.Effect != Unset:
			blame = s
		case blame.Effect == Unset:
			blame = Override{Location: fallback}
		}
	}
	return blame, true
}

// IsProtected reports whether the filters of the manager check any branch of a route.
func (m *Model) IsProtected(l *Manager, r *Route) bool {
	return slices.ContainsFunc(r.Branches(), func(tiers []Tier) bool {
		_, open := m.Unprotected(l.Checks, tiers, r.Location)
		return !open
	})
}
