package authz

// Route is one entry of the table of routes: which requests it names, what they require and what they cost. It never changes, so
// all checks share it.
type Route struct {
	Name     string   // unique in its table
	Template string   // the pattern of the path, such as /v1/orders/{id}; "" if only Envoy chooses the route, by its name
	Methods  []string // nil: all
	Hosts    []string // nil: all

	Public      bool     // no key, and no charge
	Scopes      []string // the caller needs all of these
	Plans       []string // the caller needs one of these; nil: any plan will do
	Environment string   // of the keys that may call it, "" for any
	// KeyRequired: a bearer token cannot take the place of a key. TokenRequired: a key cannot take the place of a bearer token.
	KeyRequired, TokenRequired bool
	// Charge is the price. Nil is one unit of each limit that counts requests.
	Charge Charge
}

// RouteExtension is the context extension by which the proxy's configuration chooses a route by its name.
const RouteExtension = "tollkeeper.route"

// RouteState says whether a route applies to a request.
type RouteState string

// The states of a route.
const (
	RouteOK   RouteState = "ok"   // a route applies
	RouteNone RouteState = "none" // no route names the request
	// RouteMissing: Envoy's configuration names a route that the table does not have, or no table is known.
	RouteMissing RouteState = "missing"
)

// RouteFact is the route that applies to a request. Route is nil unless State is RouteOK.
type RouteFact struct {
	State  RouteState
	Route  *Route
	Params []Param // what the names in the template stand for, in its order
}

// Param is the decoded text that a name in a template stands for.
type Param struct{ Name, Value string }

// RouteName is the name of the route, "" if none applies.
func (f *RouteFact) RouteName() string {
	if f.Route == nil {
		return ""
	}
	return f.Route.Name
}

// PathState says whether a request names one route for everybody who reads it.
type PathState string

// The states of a path. Only PathOK is accepted.
const (
	PathOK        PathState = "ok"
	PathMalformed PathState = "malformed" // it has a part that servers read in different ways
	PathAmbiguous PathState = "ambiguous" // another reading of the request leads to another route
)

// PathFault says what is wrong with a path.
type PathFault string

// The faults of a malformed path.
const (
	PathNoMethod         PathFault = "no_method"
	PathNotAbsolute      PathFault = "not_absolute"      // it does not begin with a slash
	PathUnreadable       PathFault = "unreadable"        // an escape is broken, or the text is not UTF-8
	PathDotSegment       PathFault = "dot_segment"       // . or .. between slashes, in any spelling
	PathBackslash        PathFault = "backslash"         // some servers read it as a slash
	PathControlCharacter PathFault = "control_character" // some servers stop reading there
	PathMatrix           PathFault = "matrix_parameter"  // a semicolon: some servers cut the segment there
	PathEncodedSlash     PathFault = "encoded_slash"     // some servers read it as a slash
	PathRepeatedSlash    PathFault = "repeated_slash"    // some servers merge the slashes
)

// The faults of an ambiguous path: the other reading that leads to another route.
const (
	PathDoubleEncoded  PathFault = "double_encoded"  // the path is decoded twice
	PathLooseEnding    PathFault = "loose_ending"    // dots and spaces at the end of a segment are cut, as Windows does
	PathCutShort       PathFault = "cut_short"       // the path ends at an encoded ? or #, as in Apache's rewrites
	PathCompatible     PathFault = "compatible_text" // letters are replaced by their compatible forms (Unicode NFKC)
	PathMethodCase     PathFault = "method_case"     // the method is read in capital letters
	PathMethodOverride PathFault = "method_override" // a header or a parameter replaces the method
	PathURLOverride    PathFault = "url_override"    // a header replaces the path
)

// PathFact is the one reading of a request's path. Fault is "" if State is PathOK.
type PathFact struct {
	State PathState
	Fault PathFault
}
