package model

import (
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// This file compares the routes of Envoy with a table of routes.

// RouteKey is the context extension by which Envoy names the route of a table.
const RouteKey = "tollkeeper.route"

// mayMeet reports whether a request that a route of Envoy matches may be one of an entry. It says so if it is not certain.
func (t *Table) mayMeet(e *Entry, r *Route) bool {
	if e.Path == "" {
		return false // only its name chooses it
	}
	return t.pathsMeet(e, r.Msg.GetMatch()) && hostsMeet(e.Hosts, r.Host.Msg.GetDomains())
}

func (t *Table) pathsMeet(e *Entry, m *routev3.RouteMatch) bool {
	text, whole := m.GetPath(), m.GetPath() != ""
	switch {
	case m.GetPrefix() != "":
		text = m.GetPrefix()
	case m.GetPathSeparatedPrefix() != "":
		text = m.GetPathSeparatedPrefix()
	}
	if strings.ContainsAny(text, `%;\`) || strings.Contains(text, "//") || !t.comparesPlainly() {
		return true // it depends on how the path is read
	}
	if m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue() && t.Setting("case", "fold").Value != "fold" {
		return true
	}
	if t.Setting("case", "fold").Value == "fold" {
		text = strings.ToLower(text)
	}
	rooted, ok := strings.CutPrefix(text, "/")
	switch {
	case !ok: // a regular expression or another kind of match
		return true
	case whole:
		return e.pattern.takes(splitPath(rooted))
	case m.GetPathSeparatedPrefix() != "":
		return e.pattern.takes(splitPath(rooted)) || e.pattern.meetsPrefix(text+"/")
	}
	return e.pattern.meetsPrefix(text)
}

// hostsMeet reports whether a request may be for a host of a list and for a domain of a virtual host.
func hostsMeet(hosts, domains []string) bool {
	if hosts == nil || len(domains) == 0 {
		return true
	}
	return slices.ContainsFunc(domains, func(d string) bool {
		d = strings.ToLower(d)
		if before, port, ok := strings.Cut(d, ":"); ok && !strings.Contains(port, ":") {
			d = before
		}
		return slices.ContainsFunc(hosts, func(h string) bool { return hostMeets(strings.ToLower(h), d) })
	})
}

func hostMeets(host, domain string) bool {
	hostEnd, anyHost := strings.CutPrefix(host, "*")
	domainEnd, anyDomain := strings.CutPrefix(domain, "*")
	switch {
	case strings.HasSuffix(domain, "*"):
		return true
	case anyHost && anyDomain:
		return strings.HasSuffix(hostEnd, domainEnd) || strings.HasSuffix(domainEnd, hostEnd)
	case anyHost:
		return strings.HasSuffix(domain, hostEnd)
	case anyDomain:
		return strings.HasSuffix(host, domainEnd)
	}
	return host == domain
}

// UsableTables are the tables without faults.
func (m *Model) UsableTables() []*Table {
	return slices.DeleteFunc(slices.Clone(m.Tables), func(t *Table) bool { return len(t.Faults) > 0 })
}

// KnowsTables reports whether tables are in the files, and all their routes are known.
func (m *Model) KnowsTables() bool {
	return len(m.Tables) > 0 && !slices.ContainsFunc(m.Tables, func(t *Table) bool {
		return t.Partial || len(t.Entries) == 0 || len(t.Faults) > 0
	})
}

// TableNames are the names of all routes of all tables.
func (m *Model) TableNames() (names []string) {
	for _, t := range m.Tables {
		for _, e := range t.Entries {
			names = append(names, e.Name)
		}
	}
	return names
}

// CheckedRoute is a route of Envoy whose requests are checked.
type CheckedRoute struct {
	Route
	Manager *Manager
	Chosen  []string // names of routes of the table that it chooses in its context extensions, for some of its clusters
}

// CheckedRoutes are the checked routes of all Envoys. known reports that these are all: no Envoy gets others from elsewhere.
func (m *Model) CheckedRoutes() (out []CheckedRoute, known bool) {
	known = true
	for _, l := range m.Protected() {
		known = known && !l.Hidden
		for _, r := range l.Routes {
			if m.IsProtected(l, &r) {
				out = append(out, CheckedRoute{r, l, l.chosen(&r)})
			}
		}
	}
	return out, known && len(out) > 0
}

// MayBeNamed reports whether any table may have a route for requests of a route of Envoy.
func (m *Model) MayBeNamed(r *CheckedRoute) bool {
	return len(r.Chosen) > 0 || slices.ContainsFunc(m.Tables, func(t *Table) bool {
		return slices.ContainsFunc(t.Entries, func(e *Entry) bool { return t.mayMeet(e, &r.Route) })
	})
}

// IsReached reports whether any of some routes of Envoy may lead to an entry.
func (t *Table) IsReached(e *Entry, routes []CheckedRoute) bool {
	return slices.ContainsFunc(routes, func(r CheckedRoute) bool {
		return t.mayMeet(e, &r.Route) || e.Name != "" && slices.Contains(r.Chosen, e.Name)
	})
}

// chosen are the names of routes of the table that a route of Envoy chooses in its context extensions.
func (m *Manager) chosen(r *Route) (names []string) {
	for _, tiers := range r.Branches() {
		for _, c := range m.Checks {
			if name := chosenBy(tiers, c.Filter.Name); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

// chosenBy is the name in the most specific tier that has one: Envoy merges the context extensions of all tiers.
func chosenBy(tiers []Tier, filter string) string {
	for _, t := range tiers {
		msg, _ := Unpack(t.Per[filter])
		if c, ok := msg.(*routev3.FilterConfig); ok {
			msg, _ = Unpack(c.GetConfig())
		}
		if p, ok := msg.(*extauthzv3.ExtAuthzPerRoute); ok {
			if name := p.GetCheckSettings().GetContextExtensions()[RouteKey]; name != "" {
				return name
			}
		}
	}
	return ""
}

// ChosenNames are the places in the files where a route of the table is chosen by its name.
func (m *Model) ChosenNames() []source.Location {
	var out []source.Location
	for _, e := range m.Envoys {
		for _, name := range namesIn(e.Location, nil, 0) {
			out = append(out, name.Called("context extension %s", RouteKey))
		}
	}
	for _, o := range append(m.Objects.EnvoyFilters(), m.Objects.Of(EnvoyGateway, "EnvoyPatchPolicy")...) {
		out = namesIn(o.Location, out, 0)
	}
	for _, c := range m.ChecksBy(ByPolicy) {
		for _, x := range c.At("contextExtensions").Items() {
			if x.At("name").Text() == RouteKey && x.At("value").Exists() {
				out = append(out, x.At("value"))
			}
		}
	}
	return out
}

// namesIn finds names at any depth of a value.
func namesIn(at source.Location, out []source.Location, depth int) []source.Location {
	for _, k := range at.Keys() {
		if name := at.Key(k).Key(RouteKey); source.Flatten(k) == "contextextensions" && name.Exists() {
			out = append(out, name)
		}
	}
	if depth < source.MaxDepth {
		for _, below := range at.Below() {
			out = namesIn(below, out, depth+1)
		}
	}
	return out
}
