package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// entry is a route with the set of requests that it matches.
type entry struct {
	route   *authz.Route
	hosts   hosts
	methods methods
	pattern *pattern // nil: only its name chooses it
	depth   int      // the number of routes that are less specific
	above   *entry   // the first entry before it in the file that matches all that it matches
	at      place
}

// within reports whether e matches only requests that o matches.
func (e *entry) within(o *entry) bool {
	return e.pattern.within(o.pattern) && e.methods.within(o.methods) && e.hosts.within(o.hosts)
}

// overlap returns the requests that both match, nil if there are none. The second result is false if they cannot be described.
func (e *entry) overlap(o *entry) (*entry, bool) {
	if !e.pattern.meets(o.pattern) {
		return nil, true
	}
	both := &entry{hosts: e.hosts.overlap(o.hosts), methods: e.methods.overlap(o.methods)}
	if both.hosts != nil && len(both.hosts) == 0 || both.methods != nil && len(both.methods) == 0 {
		return nil, true
	}
	p, ok := e.pattern.overlap(o.pattern)
	both.pattern = &p
	return both, ok
}

// maxConflicts bounds the conflicts that are reported for one table.
const maxConflicts = 20

// order sorts the entries so that each comes before all that are less specific. It reports entries that match the same requests,
// and those that overlap where neither is more specific.
func order(entries []*entry) (conflicts []Fault) {
	matching := slices.DeleteFunc(slices.Clone(entries), func(e *entry) bool { return e.pattern == nil })
	for i, e := range matching {
		for _, o := range matching[:i] {
			both, ok := e.overlap(o)
			if both == nil {
				continue
			}
			less, more := e.within(o), o.within(e)
			switch {
			case less && more:
				conflicts = append(conflicts, e.at.fault("it matches the same requests as %s: remove one of the two", o.where()))
			case less:
				if e.depth++; e.above == nil {
					e.above = o
				}
			case more:
				o.depth++
			case len(conflicts) < maxConflicts && !(ok && settled(both, e, o, matching)):
				conflicts = append(conflicts, e.conflict(o, both))
			}
		}
	}
	slices.SortStableFunc(entries, func(a, b *entry) int {
		// A route that is more specific than b is also more specific than all that b is more specific than, so it is deeper.
		return cmp.Or(cmp.Compare(b.depth, a.depth), strings.Compare(a.route.Template, b.route.Template), strings.Compare(a.route.Name, b.route.Name))
	})
	return conflicts
}

// settled reports whether other entries say what applies to all requests that two entries match: for each host and method, one
// entry within both.
func settled(both, a, b *entry, all []*entry) bool {
	for _, one := range both.split() {
		if !slices.ContainsFunc(all, func(e *entry) bool {
			return e != a && e != b && one.within(e) && e.within(a) && e.within(b)
		}) {
			return false
		}
	}
	return true
}

// split divides an entry into entries of one host and one method each.
func (e *entry) split() (out []*entry) {
	for _, h := range each(e.hosts) {
		for _, m := range each(e.methods) {
			out = append(out, &entry{hosts: h, methods: m, pattern: e.pattern})
		}
	}
	return out
}

// each returns the sets of one member each, and for nil, which is all members, nil.
func each[S ~[]string](set S) []S {
	if set == nil {
		return []S{nil}
	}
	return slices.Collect(slices.Chunk(set, 1))
}

func (e *entry) conflict(o, both *entry) Fault {
	what := ""
	if both.methods != nil {
		what = strings.Join(both.methods, ", ") + " "
	}
	example := both.pattern.witness("x", 0)
	return e.at.fault("it and %s both match %s%s, and neither is more specific: change one of the two, or add a route for exactly what both match",
		o.where(), what, example)
}

// where names an entry, for faults of another one.
func (e *entry) where() string {
	if e.at.line > 0 {
		return fmt.Sprintf("route %q (%s:%d)", e.route.Name, e.at.file, e.at.line)
	}
	return fmt.Sprintf("route %q", e.route.Name)
}

// witness returns a path that the pattern matches, with a text for each open part and for more segments at the end.
func (p *pattern) witness(open string, more int) string {
	var b strings.Builder
	for i := range p.segments {
		s := &p.segments[i]
		b.WriteString("/" + s.before)
		if s.open {
			b.WriteString(open + s.after)
		}
	}
	for range more {
		b.WriteString("/" + open)
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}
