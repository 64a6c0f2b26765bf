package lint

import (
	"slices"
	"strings"
)

// The rules of this file look at routes that are not checked, and at those that are though nobody expects it.

// gap is a place that leaves routes unchecked.
type gap struct {
	spot
	open  []string // what the routes match
	meant bool     // it is one route, of some paths, that says so of itself
	off   bool     // the place says so itself
}

// unchecked: routes to an upstream for which nobody is asked.
func unchecked(in *Input, report func(Finding)) {
	for _, m := range in.managers() {
		for _, g := range in.gaps(m) {
			f := g.says("%s: requests go to your service unchecked", some(g.open))
			switch {
			case !g.off:
				f.Wrong += ", since the filter is off here unless a route turns it on"
				f.Severity = Warning
			case g.meant:
				f.Severity = Info
			}
			report(f)
		}
	}
}

// gaps gathers the routes that are not checked by the places that are to blame.
func (in *Input) gaps(m *manager) []*gap {
	var out []*gap
	byPath := make(map[string]*gap)
	add := func(s spot, w *way, off, deep bool) {
		if in.accepted(w) {
			return
		}
		g := byPath[s.path]
		if g == nil {
			g = &gap{spot: s, off: off, meant: deep && w.narrow()}
			byPath[s.path] = g
			out = append(out, g)
		}
		g.open = append(g.open, w.matches())
	}
	asks := in.asksOf(m)
	for _, w := range m.ways() {
		if !w.upstream() {
			continue
		}
		if blame, off, ok := w.gap(asks); ok {
			add(blame, &w, off, strings.HasPrefix(blame.path, w.path))
			continue
		}
		for i, c := range w.route.GetRoute().GetWeightedClusters().GetClusters() {
			for _, a := range asks {
				if settingOf(c.GetTypedPerFilterConfig(), a.name) == off {
					at := w.at("route", "weighted_clusters", "clusters").index(i).at("typed_per_filter_config").key(a.name)
					add(at, &w, true, false)
				}
			}
		}
	}
	return out
}

// gap says what leaves a route unchecked, if no filter is on for it.
func (w *way) gap(asks []*authzFilter) (blame spot, isOff, ok bool) {
	for _, a := range asks {
		switch s, at := w.setting(a.name); {
		case s == on, s == unset && !a.disabled:
			return spot{}, false, false
		case s == off:
			blame, isOff = at, true
		case !isOff:
			blame = w.above[1]
		}
	}
	return blame, isOff, true
}

// narrow reports whether a route is for one path, or for those below one.
func (w *way) narrow() bool {
	m := w.route.GetMatch()
	return m.GetPath() != "" || len(m.GetPrefix()) > 1 || m.GetPathSeparatedPrefix() != ""
}

// accepted reports whether a route is meant to be open.
func (in *Input) accepted(w *way) bool {
	m := w.route.GetMatch()
	for _, name := range []string{m.GetPath(), m.GetPrefix(), m.GetPathSeparatedPrefix(), m.GetSafeRegex().GetRegex(), w.route.GetName(), w.host.GetName()} {
		if name != "" && slices.Contains(in.opt.Unchecked, name) {
			return true
		}
	}
	return false
}

// answersChecked: Envoy's own answers are checked too.
func answersChecked(in *Input, report func(Finding)) {
	for _, m := range in.managers() {
		for _, w := range m.ways() {
			if w.upstream() {
				continue
			}
			if _, _, open := w.gap(in.asksOf(m)); open {
				continue
			}
			what, at := "redirect", w.at("redirect")
			if w.route.GetDirectResponse() != nil {
				what, at = "answer of Envoy itself", w.at("direct_response")
			}
			report(at.says("%s is a %s, and still needs a credential", w.matches(), what))
		}
	}
}
