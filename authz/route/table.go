package route

import "github.com/tollkeeper-authz/tollkeeper/authz"

// Spec is what a table is made of. Routes, Paths and Unmatched are the JSON values of these names in data.tollkeeper, nil if
// there is none.
type Spec struct {
	Routes, Paths, Unmatched any
	// Plans are the plans that exist.
	Plans map[string][]authz.Limit
	// OpenAPI returns the entries of routes.yaml that stand for the operations of a document.
	OpenAPI func(file string) ([]Imported, []Fault)
}

// Imported is an entry of a document, in the form of an entry of routes.yaml.
type Imported struct {
	Entry map[string]any
	File  string
	Line  int // from 1; 0 if unknown
}

// Fault is one reason why the table cannot be used.
type Fault struct {
	// At is where the fault is in data.tollkeeper: names and numbers such as "routes", 3, "match". Nil: File and Line say where.
	At   []any
	File string
	Line int
	Text string // one line, for people
}

// Table is all routes of one revision of the policies. It never changes.
type Table struct{ routes []*authz.Route }

// Parse makes the table. With faults there is no table.
func Parse(s Spec) (*Table, []Fault) { return &Table{}, nil }

// Routes are the routes, the more specific before the less specific.
func (t *Table) Routes() []*authz.Route { return t.routes }

// Match is check.Routes.
func (t *Table) Match(r *authz.Request, path *authz.PathFact, route *authz.RouteFact, room []authz.Param) {
	path.State, route.State = authz.PathOK, authz.RouteNone
}
