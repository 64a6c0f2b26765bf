package route

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

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

// Parse makes the table. With faults there is no table.
func Parse(s Spec) (*Table, []Fault) {
	p := parser{spec: &s}
	t := &Table{paths: p.parsePaths(s.Paths)}
	p.exactTrailing = t.paths.exactTrailing
	p.parseUnmatched(s.Unmatched)
	p.parseRoutes(s.Routes)
	p.impliedHead()
	if len(p.faults) > 0 {
		return nil, p.faults
	}
	for _, e := range p.entries {
		if e.pattern != nil {
			p.compile(e, &t.paths)
		}
	}
	if p.faults = append(p.faults, order(p.entries)...); len(p.faults) > 0 {
		return nil, p.faults
	}
	t.build(p.entries)
	if faults := t.unreachable(p.entries); len(faults) > 0 {
		return nil, faults
	}
	return t, nil
}

// build compiles the entries, which are in order.
func (t *Table) build(entries []*entry) {
	t.names = make(map[string]int, len(entries))
	for i, e := range entries {
		t.routes = append(t.routes, e.route)
		t.patterns = append(t.patterns, e.pattern)
		t.names[e.route.Name] = i
		t.byMethod = t.byMethod || e.methods != nil
		t.matches = t.matches || e.pattern != nil
		if e.above != nil && e.at.file == "" && e.above.at.file == "" {
			t.hidden = append(t.hidden, Hidden{Route: e.route, Above: e.above.route, At: e.at.at})
		}
	}
	t.tree = newTree(entries, !t.paths.exactCase)
}

// parser collects entries and faults.
type parser struct {
	spec    *Spec
	entries []*entry
	names   map[string]bool
	faults  []Fault

	exactTrailing bool // a slash at the end of a path counts
}

// place is where an entry stands.
type place struct {
	at   []any
	file string
	line int
}

func (p place) below(names ...any) place {
	if p.file != "" {
		return p
	}
	return place{at: append(slices.Clone(p.at), names...)}
}

func (p place) fault(format string, args ...any) Fault {
	return Fault{At: p.at, File: p.file, Line: p.line, Text: fmt.Sprintf(format, args...)}
}

func (p *parser) fault(at place, format string, args ...any) {
	p.faults = append(p.faults, at.fault(format, args...))
}

func (p *parser) parseRoutes(v any) {
	p.names = make(map[string]bool)
	if v == nil {
		return
	}
	at := place{at: []any{"routes"}}
	list, ok := v.([]any)
	if !ok {
		p.fault(at, "want a list of routes, with a dash before each; to read a document write \"- openapi: FILE\"")
		return
	}
	for i, item := range list {
		at := at.below(i)
		fields, ok := item.(map[string]any)
		switch _, isDocument := fields["openapi"]; {
		case !ok:
			p.fault(at, "want a route with fields such as name and match")
		case isDocument:
			p.parseDocument(fields, at)
		default:
			p.parseEntry(fields, nil, at)
		}
	}
}

// parseDocument reads an entry that stands for a document.
func (p *parser) parseDocument(fields map[string]any, at place) {
	p.known(fields, at, "openapi", "match")
	file, ok := fields["openapi"].(string)
	if !ok || file == "" {
		p.fault(at.below("openapi"), "want the name of a file")
		return
	}
	match, ok := p.object(fields, "match", at)
	if !ok {
		return
	}
	p.known(match, at.below("match"), "hosts")
	onHosts := p.hosts(match, at.below("match"))
	if p.spec.OpenAPI == nil {
		p.fault(at.below("openapi"), "OpenAPI documents cannot be read here")
		return
	}
	entries, faults := p.spec.OpenAPI(file)
	p.faults = append(p.faults, faults...)
	if len(entries)+len(faults) == 0 {
		p.fault(at.below("openapi"), "%s has no operations", file)
	}
	for _, e := range entries {
		p.parseEntry(e.Entry, onHosts, place{file: e.File, line: e.Line})
	}
}

// parseEntry reads a route. The hosts apply if it names none.
func (p *parser) parseEntry(fields map[string]any, onHosts hosts, at place) {
	before := len(p.faults)
	p.known(fields, at, "name", "match", "public", "scopes", "plans", "environment", "key", "token", "charge")
	r := &authz.Route{Name: p.text(fields, "name", at)}
	e := &entry{route: r, at: at}
	e.hosts = onHosts
	if _, found := fields["match"]; found {
		p.parseMatch(e, fields, at)
	}
	r.Public = p.boolean(fields, "public", at)
	r.Scopes = p.scopes(fields, at)
	r.Plans = p.plans(fields, at)
	r.Environment = p.text(fields, "environment", at)
	r.KeyRequired = p.required(fields, "key", at)
	r.TokenRequired = p.required(fields, "token", at)
	r.Charge = p.charge(fields, r.Plans, at)
	if r.Public {
		for _, name := range []string{"scopes", "plans", "environment", "key", "token", "charge"} {
			if _, found := fields[name]; found {
				p.fault(at.below(name), "a public route asks for nothing: remove %s, or public", name)
			}
		}
	}
	if len(p.faults) > before {
		return
	}
	if r.Name == "" {
		if e.pattern == nil {
			p.fault(at, "match is missing, and a name by which Envoy could choose the route")
			return
		}
		if r.Name = derivedName(r); len(r.Name) > maxText {
			p.fault(at, "a name is missing: the one made of methods, hosts and path would have more than %d bytes", maxText)
			return
		}
	}
	if p.names[r.Name] {
		p.fault(at, "another route has the name %q", r.Name)
		return
	}
	p.names[r.Name] = true
	p.entries = append(p.entries, e)
}

func (p *parser) parseMatch(e *entry, fields map[string]any, at place) {
	match, ok := p.object(fields, "match", at)
	if !ok {
		return
	}
	at = at.below("match")
	p.known(match, at, "path", "methods", "hosts")
	path, ok := match["path"].(string)
	if !ok {
		p.fault(at.below("path"), "path is missing: want a pattern such as /v1/orders/{id}")
		return
	}
	if at.file != "" && !p.exactTrailing && path != "/" {
		path = strings.TrimSuffix(path, "/") // documents of other programs have both
	}
	pattern, err := parsePattern(path)
	if err != nil {
		p.fault(at.below("path"), "path %q: %v", path, err)
		return
	}
	e.pattern, e.methods = pattern, p.methods(match, at)
	if _, found := match["hosts"]; found {
		e.hosts = p.hosts(match, at)
	}
	e.route.Template, e.route.Methods, e.route.Hosts = path, slices.Clone(e.methods), e.hosts
}

// derivedName is the name of a route that has none of its own.
func derivedName(r *authz.Route) string {
	var parts []string
	for _, list := range [][]string{r.Methods, r.Hosts} {
		if len(list) > 0 {
			parts = append(parts, strings.Join(list, ","))
		}
	}
	return strings.Join(append(parts, r.Template), " ")
}

// impliedHead lets a route with the method GET match HEAD too, because servers answer HEAD by doing what they do for GET. It
// does not if another entry with the same path and hosts names HEAD.
func (p *parser) impliedHead() {
	key := func(e *entry) string {
		return strings.Join(slices.Sorted(slices.Values(e.hosts)), ",") + e.route.Template
	}
	named := make(map[string]bool)
	for _, e := range p.entries {
		if slices.Contains(e.methods, "HEAD") {
			named[key(e)] = true
		}
	}
	for _, e := range p.entries {
		if slices.Contains(e.methods, "GET") && !named[key(e)] {
			e.methods = append(slices.Clone(e.methods), "HEAD")
		}
	}
}

// compile brings the pattern into the form in which paths are compared.
func (p *parser) compile(e *entry, s *paths) {
	segments := e.pattern.segments
	if n := len(segments); n > 0 && segments[n-1] == (segment{}) { // the slash at the end
		if !s.exactTrailing {
			p.fault(e.at.below("match", "path"), "path %q: a slash at the end plays no part: write it without, or set paths.trailing_slash to exact", e.route.Template)
		}
	}
	if n := len(segments) - 1; s.ignoreExtension && n >= 0 && !e.pattern.rest {
		if last := &segments[n]; last.open {
			last.after = withoutExtension(last.after)
		} else {
			last.before = withoutExtension(last.before)
		}
	}
	if !s.exactCase {
		for i := range segments {
			segments[i].before, segments[i].after = folded(segments[i].before), folded(segments[i].after)
		}
	}
}

// knownLimits are the limits of some plans, or of all plans if none is given.
func (p *parser) knownLimits(plans []string) map[string]bool {
	if len(plans) == 0 {
		plans = slices.Collect(maps.Keys(p.spec.Plans))
	}
	out := make(map[string]bool)
	for _, plan := range plans {
		for i := range p.spec.Plans[plan] {
			out[p.spec.Plans[plan][i].Name] = true
		}
	}
	return out
}
