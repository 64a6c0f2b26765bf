package rulebook

import (
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/route"
)

// Operators have copies of the shipped files, some of them from older versions. In those, route.rego found the route: the first
// that matched. Such a folder goes on as it was if its table means the same to both versions. It is refused otherwise, and so is
// a mixture of files of two versions: in Rego a reference to a rule that is gone is undefined, so that the rule that refers to it
// would be skipped in silence.

const (
	faultOlder     = "older_files"
	faultReference = "undefined_reference"
	warnOrder      = "order_of_routes"
	warnReason     = "missing_reason"
)

// replaceFiles says how an operator leaves the older files behind that lie beside a file.
func replaceFiles(file string) string {
	return "replace the shipped files: tollkeeper policy init --upgrade " + path.Dir(file)
}

// shippedPackages are the packages below data.tollkeeper that the shipped files define, or defined once.
var shippedPackages = []string{
	"account", "caller", "charge", "form", "hook", "key", "payment", "permission", "quota", "route", "token",
}

// gone are rules that older versions had, and what has taken their place.
var gone = map[string]string{
	"form.path":        "input.route, or input.parsed_path",
	"form.well_formed": "input.path.state",
	"route.path":       "input.route, or input.parsed_path",
	"route.segments":   "input.route.params, or input.parsed_path",
	"route.name":       "input.route.name",
	"route.rule":       "input.route",
	"route.asked_host": "lower(input.attributes.request.http.host), which may have a port",
}

// olderFiles looks for files of older versions, and for what the order of the routes meant to them. It adds faults and returns
// warnings.
func (f *faults) olderFiles(table *route.Table, refs []bundle.Reference) []bundle.Fault {
	f.undefined(refs)
	if own := slices.IndexFunc(refs, findsRoutes); own >= 0 {
		f.mixed(refs)
		f.needsNewRules(table, refs[own].File)
		return []bundle.Fault{placed(&refs[own], faultOlder,
			"this file is of an older version: it takes the first route that matches, and knows no {name}, paths or unmatched; "+replaceFiles(refs[own].File))}
	}
	f.wholePackages(refs)
	warnings := f.opened(table)
	if reasons, _ := f.data("reasons").(map[string]any); f.policy.Shipped() && f.data("unmatched") == "deny" && reasons[string(authz.ReasonRouteUnknown)] == nil {
		warnings = append(warnings, f.at(warnReason, []any{"reasons"},
			"the reason route_unknown is missing here, so that it is answered with 403 in every profile: copy it from the reasons.yaml of tollkeeper policy init"))
	}
	return warnings
}

// findsRoutes reports whether the package tollkeeper.route reads the table itself, as it did in older versions.
func findsRoutes(r bundle.Reference) bool {
	return under(r.Package, "data", "tollkeeper", "route") && under(r.Path, "data", "tollkeeper", "routes")
}

// undefined refuses references to rules of a shipped package that do not exist. Of a shipped file it reports the first.
func (f *faults) undefined(refs []bundle.Reference) {
	said := ""
	for i := range refs {
		r := &refs[i]
		if r.Defined || len(r.Path) < 4 || !isShipped(r.Path) || r.File == said {
			continue
		}
		name := strings.Join(r.Path[2:4], ".")
		now, known := gone[name]
		what := "it would be undefined, and this rule skipped in silence"
		switch {
		case isShipped(r.Package) || under(r.Package, "data", "envoy", "authz"):
			what, said = "this file is of another version; "+replaceFiles(r.File), r.File
		case now == "input.route":
			what = "write " + strings.Join(append([]string{now}, r.Path[4:]...), ".")
		case known:
			what = "write " + now
		}
		f.list = append(f.list, placed(r, faultReference, fmt.Sprintf("data.tollkeeper.%s does not exist: %s", name, what)))
	}
}

// wholePackages refuses rules of the operator that read all of a package which has lost rules, such as r := data.tollkeeper.route.
// What they take out of it cannot be seen here.
func (f *faults) wholePackages(refs []bundle.Reference) {
	for i := range refs {
		r := &refs[i]
		if len(r.Path) != 3 || !isShipped(r.Path) || isShipped(r.Package) || under(r.Package, "data", "envoy", "authz") {
			continue
		}
		if name := r.Path[2]; name == "route" || name == "form" {
			f.list = append(f.list, placed(r, faultReference, fmt.Sprintf(
				"data.tollkeeper.%s has lost rules, and which of them is read here cannot be seen: write input.route, input.path or the whole name of the rule", name)))
		}
	}
}

// mixed refuses newer files beside the older route.rego: one would judge the request by another route than the other.
func (f *faults) mixed(refs []bundle.Reference) {
	for i := range refs {
		r := &refs[i]
		if under(r.Path, "input", "route") && isShipped(r.Package) {
			f.list = append(f.list, placed(r, faultOlder, "this file is of a newer version than route.rego: "+replaceFiles(r.File)))
			return
		}
	}
}

// needsNewRules refuses what means something else to the older rules, or nothing.
func (f *faults) needsNewRules(table *route.Table, rules string) {
	refuse := func(what string, at ...any) {
		f.add(faultOlder, at, path.Base(rules)+" is of an older version, which "+what+"; "+replaceFiles(rules))
	}
	if f.data("paths") != nil {
		refuse("does not know paths", "paths")
	}
	if v := f.data("unmatched"); v != nil && v != "charge" {
		refuse("does not know unmatched", "unmatched")
	}
	entries, _ := f.data("routes").([]any)
	for i, e := range entries {
		fields, _ := e.(map[string]any)
		if fields["openapi"] != nil {
			refuse("reads no documents", "routes", i, "openapi")
		}
		match, _ := fields["match"].(map[string]any)
		if pattern, _ := match["path"].(string); strings.Contains(pattern, "{") {
			refuse("reads {name} as plain text", "routes", i, "match", "path")
		}
		hosts, _ := match["hosts"].([]any)
		for n, h := range hosts {
			if host, _ := h.(string); strings.HasPrefix(host, "*.") {
				refuse("reads *. as plain text", "routes", i, "match", "hosts", n)
			}
		}
	}
	if table == nil {
		return
	}
	for _, h := range table.Hidden() {
		if !sameTerms(h.Route, h.Above) {
			refuse(fmt.Sprintf("takes the first route that matches: it would never take %q, because %q stands above it", h.Route.Name, h.Above.Name), h.At...)
		}
	}
}

// opened warns about routes that ask for less than a route above them which matches all that they match. While the first match
// counted, such a route never applied, and nobody noticed what it would open. It does now. A route that asks for more is no
// reason to warn: it closes what its author meant to close. The order of routes has no other meaning now, so that
// an author can say with it that the opening is meant.
func (f *faults) opened(table *route.Table) (warnings []bundle.Fault) {
	if table == nil {
		return nil
	}
	for _, h := range table.Hidden() {
		if less := asksLess(h.Route, h.Above); less != "" {
			warnings = append(warnings, f.at(warnOrder, h.At, fmt.Sprintf(
				"route %q applies although %q stands above it, and %s: the most specific route counts, and no longer the first; if this is meant, move it up",
				h.Route.Name, h.Above.Name, less)))
		}
	}
	return warnings
}

// asksLess says what a route does not ask for and another one does, "" if there is nothing.
func asksLess(r, than *authz.Route) string {
	lacks := func(scope string) bool { return !slices.Contains(r.Scopes, scope) }
	foreign := func(plan string) bool { return !slices.Contains(than.Plans, plan) }
	switch {
	case than.Public:
		return ""
	case r.Public:
		return "is public"
	case slices.ContainsFunc(than.Scopes, lacks):
		return "needs fewer scopes"
	case than.Plans != nil && (r.Plans == nil || slices.ContainsFunc(r.Plans, foreign)):
		return "is for more plans"
	case than.Environment != "" && r.Environment != than.Environment:
		return "is for other environments"
	case than.KeyRequired && !r.KeyRequired:
		return "takes a token for a key"
	case than.TokenRequired && !r.TokenRequired:
		return "needs no token"
	case costsLess(r.Charge, than.Charge):
		return "costs less"
	}
	return ""
}

// costsLess compares two charges. Nil is 1 of each limit that counts requests: less than any price that is more than 1.
func costsLess(a, than authz.Charge) bool {
	if than == nil {
		return a != nil && (len(a) == 0 || slices.Max(slices.Collect(maps.Values(a))) == 0)
	}
	for limit, n := range than {
		if a == nil && n > 1 || a != nil && a[limit] < n {
			return true
		}
	}
	return false
}

// sameTerms reports whether it makes no difference which of two routes applies.
func sameTerms(a, b *authz.Route) bool {
	x, y := *a, *b
	for _, r := range []*authz.Route{&x, &y} {
		r.Name, r.Template, r.Methods, r.Hosts = "", "", nil, nil
	}
	return reflect.DeepEqual(x, y)
}

// isShipped reports whether a path is in a package of the shipped files.
func isShipped(names []string) bool {
	return len(names) > 2 && under(names, "data", "tollkeeper") && slices.Contains(shippedPackages, names[2])
}

func placed(r *bundle.Reference, code, text string) bundle.Fault {
	return bundle.Fault{File: r.File, Line: r.Line, Column: r.Column, Code: code, Text: text}
}
