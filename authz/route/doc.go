// Package route is the table of routes: which entry of routes.yaml applies to a request.
//
// Parse reads the entries strictly (parse.go, fields.go, template.go), orders them (order.go) and compiles them into a tree (tree.go).
// It refuses routes that can never apply (reach.go). Match (table.go) reads the path of a request in one way (reading.go, fold.go) and
// finds the most specific route in the tree. If a lenient server could read the request in another way (lenient.go) that leads to
// another route, the path is ambiguous.
//
// # Which route applies
//
// A route is a set of requests: a set of hosts, a set of methods and a pattern of paths (pattern.go, hosts.go). A route is more
// specific than another if its set is a strict subset of the other's. Where two sets overlap and neither contains the other, the
// table is refused, unless a third route contains the overlap and lies within both. So among the routes that match a
// request, one is more specific than all others, in whatever order the entries stand. Go's http.ServeMux has the same rule
// without the third route.
package route
