package rules

import (
	"cmp"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
)

// This file has the rules about routes that are not checked, or that are checked by mistake.

var unprotectedRoutes = rule.Rule{
	ID: "TK120", Severity: rule.Error, Since: since, Title: "Routes to an upstream are not checked.",
	Why:    "Requests reach your service unchecked.",
	Remedy: "Remove the exemption, or name it with --unchecked if it is meant.",
	Checks: []rule.Check{gapsInEnvoy, leftOut, openedByEnvoyFilter, openedByJSONPatch},
}

// gap is a place that leaves routes unchecked.
type gap struct {
	model.Override
	open    []string     // descriptions of what the routes match
	exempts *model.Route // the route that exempts itself, nil if the gap is for several
}

func gapsInEnvoy(in *model.Model, report rule.Report) {
	for _, m := range in.Protected() {
		if m.Hidden {
			report(rule.At(m.Location, "some routes are not in the files, so they were not checked").As(rule.Info).FixedBy(giveDump))
		}
		chains := []model.Chain{m.Chain}
		for _, u := range m.Upgrades {
			if len(u.Checks) > 0 && m.Speaks(u.Kind) {
				chains = append(chains, u.Chain)
			}
		}
		for _, c := range chains {
			gaps, used := gapsOf(in, m, c.Checks)
			for _, g := range gaps {
				report(g.finding(used))
			}
		}
	}
}

// finding describes a gap. used reports that the filter is on for some route.
func (g *gap) finding(used bool) rule.Finding {
	f := rule.At(g.Location, "%s: requests go to your service unchecked", some(g.open))
	switch {
	case g.Effect == model.Elsewhere:
		f.Wrong += ": " + cmp.Or(g.Asked, "another authorizer") + " is asked instead"
		return f.FixedBy("Remove the service from check_settings, or name the route with --unchecked if it is meant.")
	case g.Effect == model.Unset:
		f.Wrong += ", since the filter is off here unless a route turns it on"
		if used {
			return f.As(rule.Warning)
		}
	case g.exempts != nil:
		return graded(f, g.exempts)
	}
	return f
}

// gapsOf groups the unchecked routes by the place that leaves them unchecked. It also returns whether other routes are checked.
func gapsOf(in *model.Model, m *model.Manager, checks []*model.ExtAuthz) (gaps []*gap, used bool) {
	byPath := make(map[string]*gap)
	add := func(o model.Override, r *model.Route) {
		if r.IsMeant(&in.Options) {
			return
		}
		g := byPath[o.Path()]
		if g == nil {
			g = &gap{Override: o}
			byPath[o.Path()] = g
			gaps = append(gaps, g)
			if strings.HasPrefix(o.Path(), r.Path()) {
				g.exempts = r
			}
		}
		what := r.Matches()
		if last := len(g.open) - 1; last < 0 || g.open[last] != what { // otherwise it is another cluster of the same route
			g.open = append(g.open, what)
		}
	}
	for _, r := range m.Routes {
		if !r.ToUpstream() {
			continue
		}
		for _, tiers := range r.Branches() {
			if o, open := in.Unprotected(checks, tiers, r.Host.Location); open {
				add(o, &r)
			} else {
				used = true
			}
		}
	}
	return gaps, used
}

// widePrefix matches prefixes whose name suggests that most of the service is below them.
var widePrefix = regexp.MustCompile(`^/(.|api|graphql|grpc|rest|rpc|v[0-9]+)(/v[0-9]+)?/?$`)

// graded returns a finding about an exempt route with its severity. A single path is usually exempt on purpose.
func graded(f rule.Finding, r *model.Route) rule.Finding {
	m := r.Msg.GetMatch()
	prefix, plain := cmp.Or(m.GetPrefix(), m.GetPathSeparatedPrefix()), false
	if re := m.GetSafeRegex(); re != nil {
		prefix, plain = judgeRegex(re.GetRegex())
	}
	switch {
	case m.GetPath() != "":
		return f.As(rule.Info)
	case len(prefix) <= 1, widePrefix.MatchString(prefix):
		return f
	case plain:
		return f.As(rule.Info)
	}
	below := strings.TrimSuffix(prefix, "/")
	f.Wrong += ", and so does " + below + "/%2e%2e;/other, which many services understand as /other"
	return f.As(rule.Warning).FixedBy("Exempt single paths, or safe_regex: {regex: '" + regexp.QuoteMeta(below) + "(/[^;%]*)?'}, or name the prefix with --unchecked.")
}

// judgeRegex returns the common prefix of all paths that a regular expression matches, and whether they are plain: without % and
// ;, because Envoy and services may understand these differently.
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

// admits reports whether a regular expression may match a text that contains a character.
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

var checkedAnswers = rule.Rule{
	ID: "TK124", Severity: rule.Info, Since: since, Title: "Requests that Envoy answers itself are checked.",
	Why:    "Health checks and redirects to HTTPS get 401 or 403.",
	Remedy: "Exempt the route with an ExtAuthzPerRoute of disabled: true, if callers without a credential need the answer.",
	Checks: each((*model.Model).Protected, func(in *model.Model, m *model.Manager, report rule.Report) {
		for _, r := range m.Routes {
			if r.ToUpstream() || !in.IsProtected(m, &r) {
				continue
			}
			what, at := "redirect", r.At("redirect")
			if r.Msg.GetDirectResponse() != nil {
				what, at = "direct response", r.At("direct_response")
			}
			report(rule.At(at, "%s is a %s of Envoy, but needs a credential", r.Matches(), what))
		}
	}),
}
