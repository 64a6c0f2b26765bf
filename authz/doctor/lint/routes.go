package lint

import (
	"cmp"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// The rules of this file look at routes that are not checked, and at those that are though nobody expects it.

// gap is a place that leaves routes unchecked.
type gap struct {
	setting
	open    []string // what the routes match
	exempts *way     // the route that says so of itself, nil if it is said of more than one route
}

// unchecked: routes to an upstream for which nobody is asked.
func unchecked(in *Input, report func(Finding)) {
	for _, m := range in.managers() {
		if m.hidden {
			f := m.says("routes come from elsewhere and are not in here to be judged")
			f.Severity, f.Remedy = Info, askRunning
			report(f)
		}
		in.uncheckedBy(m, in.asksOf(m), report)
		for _, u := range m.upgrades {
			if asks := in.ours(u.asks); len(asks) > 0 && m.upgradable(u.kind) {
				in.uncheckedBy(m, asks, report)
			}
		}
	}
}

func (in *Input) uncheckedBy(m *manager, asks []*authzFilter, report func(Finding)) {
	gaps, used := in.gaps(m, asks)
	for _, g := range gaps {
		report(g.finding(used))
	}
}

// finding says what a gap is. Used: the filter is on for some route.
func (g *gap) finding(used bool) Finding {
	f := g.says("%s: requests go to your service unchecked", some(g.open))
	switch {
	case g.state == elsewhere:
		f.Wrong += ": " + cmp.Or(g.asked, "another authorizer") + " is asked instead"
		f.Remedy = "Remove the service from check_settings, or name the route with --unchecked if it is meant."
	case g.state == unset:
		f.Wrong += ", since the filter is off here unless a route turns it on"
		if used {
			f.Severity = Warning
		}
	case g.exempts != nil:
		g.exempts.grade(&f)
	}
	return f
}

// gaps gathers the routes that are not checked by the places that are to blame, and says whether there are others.
func (in *Input) gaps(m *manager, asks []*authzFilter) (gaps []*gap, used bool) {
	byPath := make(map[string]*gap)
	add := func(s setting, w *way, alone bool) {
		if in.accepted(w) {
			return
		}
		g := byPath[s.path]
		if g == nil {
			g = &gap{setting: s}
			byPath[s.path] = g
			gaps = append(gaps, g)
			if alone {
				g.exempts = w
			}
		}
		what := w.matches()
		if last := len(g.open) - 1; last < 0 || g.open[last] != what { // several clusters of one route
			g.open = append(g.open, what)
		}
	}
	for _, w := range m.ways() {
		if !w.upstream() {
			continue
		}
		for _, tiers := range w.branches() {
			if s, ok := in.gap(asks, tiers, w.above[1]); ok {
				add(s, &w, strings.HasPrefix(s.path, w.path))
			} else {
				used = true
			}
		}
	}
	return gaps, used
}

// gap says what leaves a route unchecked, if no filter is on for it. If nothing is said anywhere, it is put down to fallback.
func (in *Input) gap(asks []*authzFilter, tiers []tier, fallback spot) (blame setting, ok bool) {
	for _, a := range asks {
		s := settingOf(tiers, a.name)
		switch {
		case s.state == on, s.state == unset && !a.disabled, s.state == elsewhere && in.asked(s.asked):
			return setting{}, false
		case s.state != unset:
			blame = s
		case blame.state == unset:
			blame = setting{spot: fallback}
		}
	}
	return blame, true
}

// asked reports whether a cluster is one that is taken to be Tollkeeper.
func (in *Input) asked(cluster string) bool {
	if in.taken == nil {
		in.taken = make(map[string]bool)
		for _, a := range in.asks() {
			in.taken[a.cluster] = true
		}
	}
	return cluster != "" && in.taken[cluster]
}

// unasked reports whether nobody is asked on a route.
func (in *Input) unasked(m *manager, w *way) bool {
	asks := in.asksOf(m)
	return !slices.ContainsFunc(w.branches(), func(tiers []tier) bool {
		_, open := in.gap(asks, tiers, w.spot)
		return !open
	})
}

// wide are prefixes below which there is, by their name, not some corner but what is to be protected.
var wide = regexp.MustCompile(`^/(.|api|graphql|grpc|rest|rpc|v[0-9]+)(/v[0-9]+)?/?$`)

// grade says how bad it is that a route is exempt. A single path is meant to be.
func (w *way) grade(f *Finding) {
	m := w.route.GetMatch()
	prefix, closed := cmp.Or(m.GetPrefix(), m.GetPathSeparatedPrefix()), false
	if r := m.GetSafeRegex(); r != nil {
		prefix, closed = judgeRegex(r.GetRegex())
	}
	switch {
	case m.GetPath() != "":
		f.Severity = Info
	case len(prefix) <= 1, wide.MatchString(prefix):
	case closed:
		f.Severity = Info
	default:
		below := strings.TrimSuffix(prefix, "/")
		f.Severity = Warning
		f.Wrong += ", and " + below + "/%2e%2e;/other, which is not below it to many services, goes with them"
		f.Remedy = "Exempt single paths, or safe_regex: {regex: '" + regexp.QuoteMeta(below) + "(/[^;%]*)?'}, or name the prefix with --unchecked."
	}
}

// judgeRegex returns how all paths begin that a regular expression takes, and whether they are plain: without % and ;, by
// which a path says one thing to Envoy and another to a service.
func judgeRegex(text string) (prefix string, plain bool) {
	text = strings.TrimPrefix(text, "^")
	re, err := regexp.Compile(text)
	if err != nil {
		return "", false
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	prefix, _ = re.LiteralPrefix()
	return prefix, err == nil && !admits(parsed, '%') && !admits(parsed, ';')
}

// admits reports whether a character may be part of what a regular expression takes.
func admits(re *syntax.Regexp, char rune) bool {
	switch re.Op {
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return true
	case syntax.OpLiteral:
		return slices.Contains(re.Rune, char)
	case syntax.OpCharClass: // pairs of the first and the last of a range
		for i := 0; i+1 < len(re.Rune); i += 2 {
			if re.Rune[i] <= char && char <= re.Rune[i+1] {
				return true
			}
		}
	}
	return slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return admits(sub, char) })
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
			if in.unasked(m, &w) {
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
