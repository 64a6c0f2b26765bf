package telemetry

import (
	"slices"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// maxRoutes bounds the time series: a table of routes may have thousands.
const maxRoutes = 200

// Values of the label route that are not names. A route with one of these names is counted as otherRoute.
const (
	noRoute    = "none"
	otherRoute = "other" // not among the first maxRoutes
)

func newRouteDecisions() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tollkeeper_route_decisions_total",
		Help: `Checks by the route that applies ("none": no route; "other": not among the first 200 by name) and outcome (allow or deny).`,
	}, []string{"route", "outcome"})
}

// routeCounters are the counters of one route.
type routeCounters struct{ allowed, denied prometheus.Counter }

func (c *routeCounters) count(allowed bool) {
	if allowed {
		c.allowed.Inc()
	} else {
		c.denied.Inc()
	}
}

func (m *Metrics) routeCounters(name string) routeCounters {
	return routeCounters{m.byRoute.WithLabelValues(name, "allow"), m.byRoute.WithLabelValues(name, "deny")}
}

// RoutesLoaded makes Record count the routes of this table, and forget those that are gone. Of too many routes it counts the first by
// name, so that all servers with the same table have the same series. A check that began under the old table may be missing in the
// counts.
func (m *Metrics) RoutesLoaded(table []*authz.Route) {
	m.reload.Lock()
	defer m.reload.Unlock()
	names := make([]string, len(table))
	for i, r := range table {
		names[i] = r.Name
	}
	slices.Sort(names)
	next := make(map[string]routeCounters, min(len(names), maxRoutes))
	for _, name := range names {
		if len(next) == maxRoutes {
			break
		}
		if utf8.ValidString(name) && name != noRoute && name != otherRoute {
			next[name] = m.routeCounters(name)
		}
	}
	for name := range *m.routes.Swap(&next) {
		if _, ok := next[name]; !ok {
			m.byRoute.DeletePartialMatch(prometheus.Labels{"route": name})
		}
	}
}

// countRoute takes no lock: the map of the counters is never changed, but replaced.
func (m *Metrics) countRoute(e *check.Entry) {
	counters := &m.noRoute
	if route := e.Facts.Route.Route; route != nil {
		known, ok := (*m.routes.Load())[route.Name]
		if counters = &known; !ok {
			counters = &m.otherRoute
		}
	}
	counters.count(e.Decision.Allowed())
}
