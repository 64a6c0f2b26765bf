package rules

import (
	"slices"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
)

// This file has the rules about Envoy itself.

var vulnerableEnvoy = rule.Rule{
	ID: "TK180", Severity: rule.Error, Since: since, Title: "This version of Envoy has known faults in external authorization.",
	Why:    "Checks can be bypassed, headers forged, or Envoy crashed.",
	Remedy: "Use Envoy 1.40.0 or newer.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		seen := make(map[model.Version]bool)
		for _, e := range in.Envoys {
			at, v := e.Location, e.Version
			if e.Base.Document() != nil {
				at = e.Base.At("node")
			}
			if !v.Known() || seen[v] {
				continue
			}
			seen[v] = true
			switch {
			case v == model.Version{1, 37, 0}:
				report(rule.At(at, "Envoy 1.37.0 appends headers that an authorizer sets: the client's own header stays in front"))
			case v.Before(model.Version{1, 39, 0}):
				report(rule.At(at, "Envoy %s has CVE-2026-47205 (use after free where a route overrides the authorizer), and faults that were fixed since", v))
			case v.Before(model.Version{1, 40, 0}):
				report(rule.At(at, "Envoy %s lacks fixes of 1.40.0: CVE-2026-50572, CVE-2026-73547, CVE-2026-73551", v).As(rule.Warning).
					FixedBy("Use 1.40.0 or newer, or check that the release notes of your patch version name these fixes."))
			}
		}
	}},
}

var openAdmin = rule.Rule{
	ID: "TK181", Severity: rule.Warning, Since: since, Title: "Envoy's admin port can be reached from outside.",
	Why:    "It shows the configuration and can stop Envoy.",
	Remedy: "Bind it to 127.0.0.1 or a socket, or set allow_paths to paths that only read counters.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		for _, e := range in.Envoys {
			admin := e.Bootstrap.GetAdmin()
			socket := admin.GetAddress().GetSocketAddress()
			restricted := len(admin.GetAllowPaths()) > 0 && !slices.ContainsFunc(admin.GetAllowPaths(), reveals)
			if socket == nil || model.Loopback(socket.GetAddress()) || restricted {
				continue
			}
			report(rule.At(e.Base.At("admin.address"), "Envoy's admin port listens on %s: any client that reaches it can read the configuration and stop Envoy", socket.GetAddress()))
		}
	}},
}

// reveals reports whether a matcher for paths of the admin port matches a path that stops Envoy or shows its configuration.
func reveals(m *matcherv3.StringMatcher) bool {
	p := m.GetPrefix()
	return p == "/" || model.Matches(m, "/quitquitquit") || strings.HasPrefix("/config_dump", p) && p != ""
}
