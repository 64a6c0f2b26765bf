package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
)

// This file has the rules about what a table of routes leaves open.

// eachTable applies a check to the tables that a server would use.
func eachTable(check func(*model.Model, *model.Table, rule.Report)) []rule.Check {
	return each((*model.Model).UsableTables, check)
}

var tableUnusable = rule.Rule{
	ID: "TK256", Severity: rule.Error, Since: since, Title: "The table of routes cannot be used.",
	Why:    "The server does not start with it, and a running server keeps the table that it has.",
	Remedy: "Correct the entry: the head of routes.yaml and policies/README.md say what it may have.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		for _, t := range in.Tables {
			for _, f := range t.Faults {
				report(rule.At(f.Location, "%s", f.Text))
			}
		}
	}},
}

var unmatchedRequests = rule.Rule{
	ID: "TK250", Severity: rule.Info, Since: since, Title: "Requests that no route names need only a good key.",
	Why:    "A path that is misspelt in the table, or new in the service, has no requirement.",
	Remedy: "Set unmatched: deny once the table names all requests of your service: then other requests are denied with route_unknown.",
	Checks: eachTable(func(_ *model.Model, t *model.Table, report rule.Report) {
		if slices.ContainsFunc(t.Entries, (*model.Entry).TakesAll) {
			return
		}
		switch t.UnmatchedIs() {
		case "charge":
			report(rule.At(t.Unmatched, "requests that no route names %s", costOf(t)))
		case "allow":
			report(rule.At(t.Unmatched, "requests that no route names %s: a path that the table misspells is free", costOf(t)).As(rule.Warning).
				FixedBy("Set unmatched: deny once the table names all requests of your service, or unmatched: charge until then."))
		}
	}),
}

// costOf says what a request that no route names needs and costs.
func costOf(t *model.Table) string {
	if t.UnmatchedIs() == "allow" {
		return "need only a good key, and cost nothing"
	}
	return "need only a good key, and cost 1 unit of each limit that counts requests"
}

var otherMethods = rule.Rule{
	ID: "TK251", Severity: rule.Warning, Since: since, Title: "A route is for some methods, and no route takes the others.",
	Why:    "Requests with another method do not meet the route's requirements: they need only a good key.",
	Remedy: "Set unmatched: deny, or add a route for the path without methods. Name a path that is open on purpose with --unchecked.",
	Checks: eachTable(func(in *model.Model, t *model.Table, report rule.Report) {
		if t.UnmatchedIs() == "deny" {
			return
		}
		open, judged := t.OpenMethods(&in.Options)
		if !judged {
			report(rule.At(t.Unmatched, "there are too many routes to find out which methods they leave open").As(rule.Info))
		}
		if len(open) == 0 {
			return
		}
		var words []string
		for _, o := range open {
			words = append(words, strings.Join(o.Methods, ", ")+" "+o.Entry.Path)
		}
		report(rule.At(open[0].Entry.At("match.methods"), "no route takes %s: such requests %s", some(words), costOf(t)))
	}),
}

var widePublic = rule.Rule{
	ID: "TK252", Severity: rule.Warning, Since: since, Title: "A public route is wide.",
	Why:    "Its requests need no key: with any method they may write, and under /** they may be anything that no other route names.",
	Remedy: "Name the methods and the paths that are public, such as methods: [GET].",
	Checks: eachTable(func(in *model.Model, t *model.Table, report rule.Report) {
		for _, e := range t.Entries {
			switch {
			case !e.Public(), e.Path == "", e.IsMeant(&in.Options):
			case e.Methods == nil:
				report(rule.At(e.At("public"), "%s needs no key with any method, so also to write", e.Path))
			case e.Path == "/**" && e.Hosts == nil:
				report(rule.At(e.At("public"), "all paths that no other route names need no key"))
			}
		}
	}),
}

var lenientPaths = rule.Rule{
	ID: "TK253", Severity: rule.Warning, Since: since, Title: "Another spelling of a path passes by its route.",
	Why:    "A server that reads both spellings alike serves the request without the route's requirements.",
	Remedy: "Remove the setting, unless your server tells the spellings apart: policies/README.md has a table of servers.",
	Checks: eachTable(func(in *model.Model, t *model.Table, report rule.Report) {
		for _, l := range lenientSettings {
			at := t.Setting(l.name, "")
			if at.Value != l.value {
				continue
			}
			if l.envoy != "" && neverArrives(in, l.name) {
				report(rule.At(at.Location, "the proxy in the files sends no such path to Tollkeeper and to your service, so the setting changes nothing").As(rule.Info).
					FixedBy(fmt.Sprintf("Remove the setting, or %s if your service needs such paths.", l.envoy)))
				continue
			}
			found := rule.At(at.Location, "%s", l.opens).FixedBy("Remove the setting, unless your server " + l.right + ".")
			if t.UnmatchedIs() == "deny" {
				found = found.As(rule.Info) // only a wider route may still take it
			}
			report(found)
		}
	}),
}

// lenientSettings are the settings of paths that let another spelling pass by a route.
var lenientSettings = []struct {
	name, value string
	opens       string // what passes
	right       string // completes "your server ..."
	envoy       string // the setting of Envoy with which such paths arrive, "" if they always do
}{
	{"matrix", "keep", "/v1/reports;a=1 is not /v1/reports here, but for servers that cut parameters it is",
		"takes a semicolon for a part of a name, as Go and Express do, and Spring, Tomcat and Jetty do not", ""},
	{"case", "exact", "/V1/Reports is not /v1/reports here, but for servers that ignore case it is",
		"tells capital letters apart, as Go and Spring do, and Express, ASP.NET Core and IIS do not", ""},
	{"encoded_slash", "keep", "/v1%2Freports is not /v1/reports here, but for servers that decode a path before they route it, it is",
		"routes before it decodes, as Go and Express do, and Flask and Django do not", "path_with_escaped_slashes_action: KEEP_UNCHANGED"},
	{"repeated_slash", "keep", "/v1//reports is not /v1/reports here, but for servers that merge slashes it is",
		"tells empty segments apart, as object stores do, and nginx does not", "merge_slashes: false"},
	{"trailing_slash", "exact", "/v1/reports/ is not /v1/reports here, but for servers that ignore a slash at the end it is",
		"tells a slash at the end apart, as Go and Spring 6 do, and Express, Rails and ASP.NET Core do not", ""},
}

// neverArrives reports whether every proxy in the files that asks Tollkeeper changes or refuses the paths that a setting is about.
func neverArrives(in *model.Model, setting string) bool {
	escaped := setting == "encoded_slash"
	var all []bool
	for _, m := range in.Protected() {
		if escaped {
			all = append(all, !keepsEscapedSlashes(m.Msg))
		} else {
			all = append(all, m.Msg.GetMergeSlashes())
		}
	}
	for _, c := range in.ChecksBy(model.ByProvider) {
		v := c.Mesh.At("pathNormalization.normalization").Text()
		all = append(all, v == "DECODE_AND_MERGE_SLASHES" || v == "MERGE_SLASHES" && !escaped)
	}
	if len(in.ChecksBy(model.ByPolicy)) > 0 {
		all = append(all, !slices.ContainsFunc(in.Objects.Of(model.EnvoyGateway, "ClientTrafficPolicy"), func(o *model.Object) bool {
			if escaped {
				return o.At("spec.path.escapedSlashesAction").Text() == "KeepUnchanged"
			}
			return o.At("spec.path.disableMergeSlashes").True()
		}))
	}
	return len(all) > 0 && !slices.Contains(all, false)
}

var unknownRoute = rule.Rule{
	ID: "TK254", Severity: rule.Error, Since: since, Title: "Envoy chooses a route that the table does not have.",
	Why:    "Every such request is denied with policy_error.",
	Remedy: "Correct the name, or add the route to the table.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		if !in.KnowsTables() {
			return
		}
		names := in.TableNames()
		for _, at := range in.ChosenNames() {
			if slices.Contains(names, at.Text()) {
				continue
			}
			hint := ""
			if near := nearest(at.Text(), names); near != "" {
				hint = fmt.Sprintf(": did you mean %q?", near)
			}
			report(rule.At(at, "no route of the table has the name %q%s", at.Text(), hint))
		}
	}},
}

var apartRoutes = rule.Rule{
	ID: "TK255", Severity: rule.Info, Since: since, Title: "Routes of Envoy and of the table do not meet.",
	Why:    "A route of Envoy that no route of the table names has no requirement of its own. A route of the table that no route of Envoy leads to is useless, or misspelt.",
	Remedy: "Compare the paths and the hosts of both files.",
	Checks: []rule.Check{unnamedByTable, uselessEntries},
}

// unnamedByTable finds routes of Envoy whose requests no route of the table can name.
func unnamedByTable(in *model.Model, report rule.Report) {
	if !in.KnowsTables() {
		return
	}
	fate := "are denied with route_unknown"
	if t := in.UsableTables()[0]; t.UnmatchedIs() != "deny" {
		fate = costOf(t)
	}
	routes, _ := in.CheckedRoutes()
	apart := make(map[*model.Manager][]string)
	first := make(map[*model.Manager]*model.CheckedRoute)
	var order []*model.Manager
	for i := range routes {
		r := &routes[i]
		if !r.ToUpstream() || in.MayBeNamed(r) {
			continue
		}
		if first[r.Manager] == nil {
			first[r.Manager], order = r, append(order, r.Manager)
		}
		apart[r.Manager] = append(apart[r.Manager], r.Matches())
	}
	for _, m := range order {
		report(rule.At(first[m].At("match"), "no route of the table names requests for %s: they %s", some(apart[m]), fate))
	}
}

// uselessEntries finds routes of the table that no route of Envoy leads to.
func uselessEntries(in *model.Model, report rule.Report) {
	routes, known := in.CheckedRoutes()
	tables := in.UsableTables()
	if len(tables) != 1 || !known {
		return
	}
	var useless []string
	var first *model.Entry
	for _, e := range tables[0].Entries {
		if !tables[0].IsReached(e, routes) {
			if useless = append(useless, fmt.Sprintf("%q", e.Name)); first == nil {
				first = e
			}
		}
	}
	if first != nil {
		report(rule.At(first.Location, "no route of the Envoy in the files leads to %s", some(useless)))
	}
}
