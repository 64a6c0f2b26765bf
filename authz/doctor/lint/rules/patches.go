package rules

import (
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// The checks in this file find EnvoyFilters and EnvoyPatchPolicies that remove the check, or exempt routes from it.

const removePatch = "Remove the patch."

// removedByEnvoyFilter finds EnvoyFilters that remove the filter that istiod makes.
func removedByEnvoyFilter(in *model.Model, report rule.Report) {
	for _, o := range in.Objects.EnvoyFilters() {
		for _, p := range o.ConfigPatches() {
			op, value := p.At("patch.operation"), p.At("patch.value")
			replaced := op.Text() == "REPLACE" && len(model.ExtAuthzIn(value)) == 0
			target := p.At("applyTo").Text()
			isExtAuthz := target == "HTTP_FILTER" && strings.Contains(p.At("match.listener.filterChain.filter.subFilter.name").Text(), "ext_authz")
			switch {
			case replaced && target == "NETWORK_FILTER" && value.At("typed_config").TypeName() == model.ManagerType:
				report(rule.At(op, "it replaces the filters that istiod makes, and the new ones do not ask").FixedBy("Use a patch that merges only the fields that you need."))
			case !isExtAuthz:
			case op.Text() == "REMOVE", replaced:
				report(rule.At(op, "it removes the filter that asks: requests pass unchecked").FixedBy(removePatch))
			case value.At("disabled").True():
				report(rule.At(value.At("disabled"), "it disables the filter that asks: requests pass unchecked").FixedBy(removePatch))
			}
		}
	}
}

// removedByJSONPatch finds EnvoyPatchPolicies that remove the filter, or the configuration that turns it on for routes.
func removedByJSONPatch(in *model.Model, report rule.Report) {
	for _, j := range in.JSONPatches {
		if j.Elsewhere() || in.IsMeant(j.Policy.Name) {
			continue
		}
		if what := removes(&j); what != "" {
			report(rule.At(j.At("path"), "%s: requests pass unchecked", what).FixedBy(removePatch))
		}
	}
}

// removes describes how an operation removes the check, "" if it does not.
func removes(j *model.JSONPatch) string {
	named := j.NamesExtAuthz()
	switch {
	case j.Sets() && j.EndsWith("disabled", 0) && j.Value().True() && !slices.Contains(j.Path, perFilter) && (named || j.EndsWith("http_filters", 2)):
		return "it disables a filter, which may be the one that asks"
	case j.Op != "remove" && j.Op != "move" && (j.Op != "replace" || len(model.ExtAuthzIn(j.Value())) > 0):
		return ""
	case j.EndsWith(perFilter, 0), j.EndsWith(perFilter, 1) && named:
		if j.Op == "replace" {
			return ""
		}
		return "it removes the configuration that turns the check on for a route"
	case j.EndsWith("http_filters", 0), j.EndsWith("http_filters", 1), j.EndsWith("http_filters", 2) && j.EndsWith("typed_config", 0):
		return "it removes a filter by its index, which may be the one that asks"
	case named && (len(j.Path) == 0 || len(j.Path) == 1 && j.Path[0] == "typed_config"):
		return "it removes the filter that asks"
	}
	return ""
}

const (
	perFilter = "typed_per_filter_config"
	opensPart = "the patch disables the check in the filter that it is merged into: requests go to your service unchecked"
	opens     = "the patch removes the check from routes: requests go to your service unchecked"
)

// openedByEnvoyFilter finds routes that an EnvoyFilter exempts from the check.
func openedByEnvoyFilter(in *model.Model, report rule.Report) {
	for _, o := range in.Objects.EnvoyFilters() {
		for _, p := range o.ConfigPatches() {
			host := p.At("match.routeConfiguration.vhost")
			route := host.At("route.name").Text()
			if in.IsMeant(o.Name) || in.IsMeant(route) || in.IsMeant(host.At("name").Text()) {
				continue
			}
			for _, at := range exemptions(p.At("patch.value"), 0) {
				found := rule.At(at, opensPart)
				if route != "" && p.At("applyTo").Text() == "HTTP_ROUTE" {
					found = found.As(rule.Warning)
				}
				report(found)
			}
		}
	}
}

// openedByJSONPatch finds routes that an EnvoyPatchPolicy exempts from the check.
func openedByJSONPatch(in *model.Model, report rule.Report) {
	for _, j := range in.JSONPatches {
		if in.IsMeant(j.Policy.Name) {
			continue
		}
		value := j.Value()
		found := exemptions(value, 0)
		i := slices.Index(j.Path, perFilter)
		switch {
		case i < 0 || !j.Sets():
		case i == len(j.Path)-1:
			found = append(found, exemptionsPer(value)...)
		case strings.Contains(j.Path[i+1], "ext_authz"):
			found = append(found, disabled(value)...)
			if j.EndsWith("disabled", 0) && value.True() {
				found = append(found, value)
			}
		}
		for _, at := range found {
			report(rule.At(at, opens))
		}
	}
}

// exemptions are the locations that disable the filter for routes, at any depth.
func exemptions(at source.Location, depth int) []source.Location {
	var out []source.Location
	if depth > source.MaxDepth {
		return nil
	}
	for _, k := range at.Keys() {
		if below := at.Key(k); source.Flatten(k) == source.Flatten(perFilter) {
			out = append(out, exemptionsPer(below)...)
		} else {
			out = append(out, exemptions(below, depth+1)...)
		}
	}
	for _, item := range at.Items() {
		out = append(out, exemptions(item, depth+1)...)
	}
	return out
}

// exemptionsPer are the locations in per-filter configurations that disable the ext_authz filter.
func exemptionsPer(per source.Location) []source.Location {
	var out []source.Location
	for _, name := range per.Keys() {
		entry := per.Key(name)
		if strings.Contains(name, "ext_authz") || strings.HasSuffix(entry.At(source.TypeKey).Text(), ".ExtAuthzPerRoute") {
			out = append(out, disabled(entry)...)
		}
	}
	return out
}

// disabled is the location in a route's configuration of a filter that disables the filter.
func disabled(at source.Location) []source.Location {
	return slices.DeleteFunc([]source.Location{at.At("disabled"), at.At("config.disabled")}, func(l source.Location) bool { return !l.True() })
}
