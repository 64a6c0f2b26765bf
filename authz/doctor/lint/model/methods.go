package model

import (
	"slices"
	"strings"
)

// OpenPath is a route of a table for some methods, with methods of its path that no route takes.
type OpenPath struct {
	Entry   *Entry
	Methods []string
}

// commonMethods are the methods that are looked for. HEAD goes with GET.
var commonMethods = []string{"GET", "POST", "PUT", "PATCH", "DELETE"}

// maxCompared bounds the work on one table, because a file may be made to keep doctor busy.
const maxCompared = 50_000_000

// OpenMethods are the routes with demands for some methods whose paths no route takes with other methods. judged is false if there
// are too many routes to find out. There are none if that is not certain, as with routes that could not be read.
func (t *Table) OpenMethods(opt *Options) (open []OpenPath, judged bool) {
	if t.Partial || !t.comparesPlainly() {
		return nil, true
	}
	longest, work := 0, 0
	for _, e := range t.Entries {
		longest = max(longest, len(e.pattern))
	}
	seen := make(map[string]bool)
	for _, e := range t.Entries {
		if !e.Demands() || e.Methods == nil || e.Path == "" || seen[e.Path] || e.IsMeant(opt) {
			continue
		}
		requests := e.examples(longest)
		if work += len(requests) * len(t.Entries); work > maxCompared {
			return open, false
		}
		if methods := t.openMethods(requests); len(methods) > 0 {
			seen[e.Path] = true
			open = append(open, OpenPath{e, methods})
		}
	}
	return open, true
}

// example is a request of any method.
type example struct {
	host string
	path []string
}

// examples are requests that an entry matches.
func (e *Entry) examples(longest int) (out []example) {
	hosts := []string{other}
	if e.Hosts != nil {
		hosts = e.Hosts
	}
	for _, path := range e.pattern.witnesses(longest) {
		for _, h := range hosts {
			out = append(out, example{strings.ToLower(strings.Replace(h, "*", other, 1)), path})
		}
	}
	return out
}

// openMethods are the common methods that no route takes, for any of the requests.
func (t *Table) openMethods(requests []example) (open []string) {
	for _, method := range commonMethods {
		if slices.ContainsFunc(requests, func(x example) bool { return !t.takes(method, x) }) {
			open = append(open, method)
		}
	}
	return open
}

// takes reports whether any route takes a request.
func (t *Table) takes(method string, x example) bool {
	return slices.ContainsFunc(t.Entries, func(e *Entry) bool {
		return (e.Methods == nil || slices.Contains(e.Methods, method)) && hostsMeet(e.Hosts, []string{x.host}) &&
			e.Path != "" && e.pattern.takes(x.path)
	})
}
