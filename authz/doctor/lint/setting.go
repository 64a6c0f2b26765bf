package lint

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
)

// state is what routes, and what stands above them, say of a filter.
type state int

const (
	unset state = iota
	on
	off
	elsewhere // another authorizer is asked
)

// setting is such a state, and where it is said.
type setting struct {
	spot
	state state
	asked string // the cluster that is asked on this route, "" if it is that of the filter
}

// tier is one of the places that may say something of a filter.
type tier struct {
	spot
	per map[string]*anyMessage
}

// tiers are those of a route, the most specific first.
func (w *way) tiers() []tier {
	return []tier{
		{w.spot, w.route.GetTypedPerFilterConfig()},
		{w.above[1], w.host.GetTypedPerFilterConfig()},
		{w.above[0], w.table.GetTypedPerFilterConfig()},
	}
}

// branches are the tiers of what becomes of a route: each of its weighted clusters may say something of its own.
func (w *way) branches() [][]tier {
	clusters := w.route.GetRoute().GetWeightedClusters().GetClusters()
	if len(clusters) == 0 {
		return [][]tier{w.tiers()}
	}
	at := w.at("route", "weighted_clusters", "clusters")
	out := make([][]tier, len(clusters))
	for i, c := range clusters {
		out[i] = append([]tier{{at.index(i), c.GetTypedPerFilterConfig()}}, w.tiers()...)
	}
	return out
}

// settingOf is what counts for a filter. The most specific tier that names it says whether it is in the chain. What it
// does there is said by the most specific tier that has a configuration: an empty one switches the filter on, and leaves
// in force that it is disabled further up.
func settingOf(tiers []tier, filter string) setting {
	s := setting{}
	for _, l := range tiers {
		packed, ok := l.per[filter]
		if !ok {
			continue
		}
		at := l.at("typed_per_filter_config").key(filter)
		msg, _ := unpack(packed)
		if c, ok := msg.(*routev3.FilterConfig); ok {
			if c.GetDisabled() && s.state == unset {
				return setting{spot: at, state: off}
			}
			if msg = nil; !c.GetDisabled() {
				msg, _ = unpack(c.GetConfig())
			}
		}
		if s.state == unset {
			s = setting{spot: at, state: on}
		}
		if p, ok := msg.(*extauthzv3.ExtAuthzPerRoute); ok {
			return perRoute(at, p)
		}
	}
	return s
}

func perRoute(at spot, p *extauthzv3.ExtAuthzPerRoute) setting {
	c := p.GetCheckSettings()
	grpc, http := c.GetGrpcService(), c.GetHttpService()
	switch {
	case p.GetDisabled():
		return setting{spot: at, state: off}
	case grpc == nil && http == nil:
		return setting{spot: at, state: on}
	}
	s := setting{spot: at, state: elsewhere, asked: askedCluster(grpc, http)}
	if s.asked == "" {
		s.asked = grpc.GetGoogleGrpc().GetTargetUri()
	}
	return s
}
