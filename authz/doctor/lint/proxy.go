package lint

import "strings"

// The rules of this file look at Envoy itself.

func vulnerable(in *Input, report func(Finding)) {
	seen := make(map[version]bool)
	say := func(s spot, v version) {
		if !v.known() || seen[v] {
			return
		}
		seen[v] = true
		switch {
		case v == version{1, 37, 0}:
			report(s.says("Envoy 1.37.0 appends headers that an authorizer sets: what a client sent stays in front"))
		case v.before(1, 39, 0):
			report(s.says("Envoy %s has CVE-2026-47205 (use after free where a route overrides the authorizer), and what was fixed since", v))
		case v.before(1, 40, 0):
			f := s.says("Envoy %s came before the fixes in 1.40.0: CVE-2026-50572, CVE-2026-73547, CVE-2026-73551", v)
			f.Severity = Warning
			f.Remedy = "Use 1.40.0 or newer, or check that the release notes of your patch version name these fixes."
			report(f)
		}
	}
	for _, e := range in.envoys {
		s := e.spot
		if e.base.doc != nil {
			s = e.base.at("node")
		}
		say(s, in.versionOf(e))
	}
}

func adminOpen(in *Input, report func(Finding)) {
	for _, e := range in.envoys {
		a := e.bootstrap.GetAdmin().GetAddress()
		host := a.GetSocketAddress().GetAddress()
		if a.GetSocketAddress() == nil || loopback(host) || len(e.bootstrap.GetAdmin().GetAllowPaths()) > 0 && !allowsAll(e) {
			continue
		}
		report(e.base.at("admin", "address").says("Envoy's admin port listens on %s: whoever reaches it reads the configuration and stops Envoy", host))
	}
}

// allowsAll reports whether the paths that may be asked for leave anything out.
func allowsAll(e *envoy) bool {
	for _, m := range e.bootstrap.GetAdmin().GetAllowPaths() {
		if p := m.GetPrefix(); p == "/" || matches(m, "/quitquitquit") || strings.HasPrefix("/config_dump", p) && p != "" {
			return true
		}
	}
	return false
}
