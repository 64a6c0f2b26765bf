package lint

import "strings"

// readDump reads what /config_dump of a running Envoy says.
func readDump(s spot) *envoy {
	e := &envoy{spot: s, dump: true}
	var bootstrap spot
	sections := make(map[string]bool)
	for _, section := range s.at("configs").items() {
		name := section.at("@type").text()
		name = name[strings.LastIndex(name, ".")+1:]
		sections[name] = true
		switch name {
		case "BootstrapConfigDump":
			bootstrap = section.at("bootstrap")
			e.readBase(bootstrap)
		case "ListenersConfigDump":
			e.dumpedListeners(section)
		case "ClustersConfigDump":
			e.dumpedClusters(section)
		case "RoutesConfigDump":
			for _, list := range []string{"static_route_configs", "dynamic_route_configs"} {
				for i, item := range section.at(list).items() {
					routes := item.at("route_config")
					e.addRoutes(routes.called("routes %q", nameOf(routes, i)))
				}
			}
		}
	}
	if bootstrap.is { // a dump of only some sections
		if !sections["ListenersConfigDump"] {
			for i, l := range bootstrap.at("static_resources", "listeners").items() {
				e.addListener(l.called("listener %q", nameOf(l, i)))
			}
		}
		if !sections["ClustersConfigDump"] {
			for i, c := range bootstrap.at("static_resources", "clusters").items() {
				e.addCluster(c.called("cluster %q", nameOf(c, i)))
			}
		}
	}
	e.link()
	return e
}

func (e *envoy) dumpedListeners(section spot) {
	for i, item := range section.at("static_listeners").items() {
		l := item.at("listener")
		e.addListener(l.called("listener %q", nameOf(l, i)))
	}
	for i, item := range section.at("dynamic_listeners").items() {
		l := item.at("active_state", "listener")
		if l.is {
			e.addListener(l.called("listener %q", nameOf(l, i)))
		}
		if refused := item.at("error_state", "details"); refused.is {
			e.faults = append(e.faults, refused.called("listener %q", nameOf(item, i)).says("Envoy refused this listener: %s", refused.text()))
		}
	}
}

func (e *envoy) dumpedClusters(section spot) {
	for i, item := range section.at("static_clusters").items() {
		c := item.at("cluster")
		e.addCluster(c.called("cluster %q", nameOf(c, i)))
	}
	for i, item := range section.at("dynamic_active_clusters").items() {
		c := item.at("cluster")
		e.addCluster(c.called("cluster %q", nameOf(c, i)))
	}
	for i, item := range section.at("dynamic_warming_clusters").items() {
		if refused := item.at("error_state", "details"); refused.is {
			e.faults = append(e.faults, refused.called("cluster %q", nameOf(item, i)).says("Envoy refused this cluster: %s", refused.text()))
		}
	}
}
