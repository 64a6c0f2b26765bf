package route

import (
	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Table is all routes of one revision of the policies. It never changes, and its methods may be called concurrently.
type Table struct {
	routes   []*authz.Route // the more specific before the less specific
	names    map[string]int
	patterns []*pattern // of the routes, nil for those without one
	tree     *tree
	paths    paths
	byMethod bool // a route has methods
	matches  bool // a route has a pattern
	hidden   []Hidden
}

// Hidden is a route below another one in the file that matches all that it matches. Where the first match counted, such a route
// would never apply. Here it does.
type Hidden struct {
	Route, Above *authz.Route
	At           []any // of the route, as in Fault
}

// Routes are the routes, the more specific before the less specific. The caller must not change them.
func (t *Table) Routes() []*authz.Route { return t.routes }

// Hidden returns the hidden routes of the file itself: operations of documents never had an order.
func (t *Table) Hidden() []Hidden { return t.hidden }

// Match is check.Routes. A request without a path, or with one that cannot be read in one way, has no route.
func (t *Table) Match(r *authz.Request, path *authz.PathFact, route *authz.RouteFact, room []authz.Param) {
	*path, *route = authz.PathFact{State: authz.PathMalformed}, authz.RouteFact{State: authz.RouteNone}
	h := r.HTTP
	if h == nil || h.Method == "" {
		path.Fault = authz.PathNoMethod
		return
	}
	var memory [24]string
	segments, found, fault := t.paths.read(h.Path, memory[:0])
	if fault != "" {
		path.Fault = fault
		return
	}
	path.State = authz.PathOK
	if name, chosen := r.ContextExtensions[authz.RouteExtension]; chosen {
		if fault := t.chosenOtherwise(h, segments); fault != "" {
			*path = authz.PathFact{State: authz.PathAmbiguous, Fault: fault}
			return
		}
		t.choose(name, segments, route, room)
		return
	}
	if !t.matches {
		return
	}
	host := bareHost(h.Host)
	number := t.tree.find(host, h.Method, segments)
	if fault := t.otherwise(number, h, host, segments, found); fault != "" {
		*path = authz.PathFact{State: authz.PathAmbiguous, Fault: fault}
		return
	}
	if number != none {
		t.fill(number, segments, route, room)
	}
}

// choose fills the fact about a route that the proxy chose by name. An unknown name must not mean "no rules": the operator who
// named the route meant its rules.
func (t *Table) choose(name string, segments []string, route *authz.RouteFact, room []authz.Param) {
	number, exists := t.names[name]
	if !exists {
		route.State = authz.RouteMissing
		return
	}
	if p := t.patterns[number]; p == nil || !p.matches(t.paths.foldAll(segments)) {
		segments = nil
	}
	t.fill(number, segments, route, room)
}

// fill fills the fact about a route. The segments match its pattern; without any there are no parameters.
func (t *Table) fill(number int, segments []string, route *authz.RouteFact, room []authz.Param) {
	route.State, route.Route = authz.RouteOK, t.routes[number]
	if len(segments) == 0 {
		return
	}
	for i := range t.patterns[number].segments {
		if s := &t.patterns[number].segments[i]; s.name != "" {
			room = append(room, authz.Param{Name: s.name, Value: s.between(segments[i])})
		}
	}
	if len(room) > 0 {
		route.Params = room
	}
}
