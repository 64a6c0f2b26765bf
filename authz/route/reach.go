package route

import (
	"fmt"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// unreachable reports routes that cannot apply to any request: more specific ones match all that they match, or the reading of
// paths refuses what they match. It asks the table about requests of each kind that a route matches, with texts that no pattern
// names, so that only routes match that match all requests of the kind.
func (t *Table) unreachable(entries []*entry) (out []Fault) {
	fresh, longest := freshText(entries), 0
	for _, e := range entries {
		if e.pattern != nil {
			longest = max(longest, len(e.pattern.segments))
		}
	}
	for number, e := range entries {
		if e.pattern == nil {
			continue
		}
		if why := t.whyUnreachable(number, e, fresh, longest); why != "" {
			out = append(out, e.at.fault("route %q can never apply: %s", e.route.Name, why))
		}
	}
	return out
}

// whyUnreachable returns "" if the route applies to some request.
func (t *Table) whyUnreachable(number int, e *entry, fresh string, longest int) string {
	why := "more specific routes match all that it matches"
	for more := 0; ; more++ {
		path := escapePath(e.pattern.witness(fresh, more))
		for _, m := range orFresh(e.methods, "FRESH") {
			for _, h := range orFresh(e.hosts, fresh) {
				r := &authz.Request{HTTP: &authz.HTTP{Method: m, Host: strings.Replace(h, "*", fresh, 1), Path: path}}
				var fact authz.PathFact
				var route authz.RouteFact
				t.Match(r, &fact, &route, nil)
				switch {
				case route.Route == t.routes[number]:
					return ""
				case fact.State != authz.PathOK:
					why = fmt.Sprintf("paths such as %s are refused as %s", strings.ReplaceAll(path, fresh, "x"), fact.Fault)
				}
			}
		}
		if !e.pattern.rest || len(e.pattern.segments)+more > longest {
			return why
		}
	}
}

func orFresh(list []string, fresh string) []string {
	if list == nil {
		return []string{fresh}
	}
	return list
}

// freshText is a text that no open or fixed segment, and no host, has in it.
func freshText(entries []*entry) string {
	var all strings.Builder
	longest := 0
	for _, e := range entries {
		if e.pattern == nil {
			continue
		}
		for _, s := range e.pattern.segments {
			all.WriteString(s.before + s.after)
			longest = max(longest, len(s.before)+len(s.after))
		}
		for _, h := range e.hosts {
			all.WriteString(h)
			longest = max(longest, len(h))
		}
	}
	for _, letter := range "x0qzj7~_" {
		if !strings.ContainsRune(all.String(), letter) {
			return string(letter)
		}
	}
	return strings.Repeat("x0qzj7~_", longest) // longer than any, and no text repeats it so often
}
