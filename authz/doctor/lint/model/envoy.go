package model

import (
	"cmp"
	"slices"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// Envoy is the configuration of one Envoy: its bootstrap, or its configuration dump.
type Envoy struct {
	source.Location
	Dump      bool // it is the dump of a running Envoy
	Version   Version
	Bootstrap *bootstrapv3.Bootstrap // nil if there is none
	Base      source.Location        // of the bootstrap, the zero Location if there is none
	Listeners []Part[*listenerv3.Listener]
	Managers  []*Manager
	TCP       []TCPProxy
	clusters  []Part[*clusterv3.Cluster]
	routes    []Part[*routev3.RouteConfiguration]
	faults    []Fault
	asked     string // the cluster of Tollkeeper, "" for any
}

// envoySource is a bootstrap, or the answer of /config_dump.
type envoySource struct {
	source.Location
	dump bool
}

// readEnvoy reads an Envoy. Only filters that ask the given cluster are checks; "" means any cluster.
func readEnvoy(s envoySource, asked string) *Envoy {
	e := &Envoy{Location: s.Location, Dump: s.dump, asked: asked}
	if e.Dump {
		e.readDump()
	} else {
		e.readBootstrap(s.Location)
		e.readListeners(s.At("static_resources.listeners").Items())
		e.readClusters(s.At("static_resources.clusters").Items())
	}
	for _, l := range e.Listeners {
		e.readListener(l)
	}
	return e
}

// readDump reads the sections of a dump. A dump may have only some of them.
func (e *Envoy) readDump() {
	var bootstrap source.Location
	var listeners, clusters bool
	for _, section := range e.At("configs").Items() {
		name := section.At(source.TypeKey).Text()
		switch name[strings.LastIndex(name, ".")+1:] {
		case "BootstrapConfigDump":
			bootstrap = section.At("bootstrap")
			e.readBootstrap(bootstrap)
		case "ListenersConfigDump":
			listeners = true
			e.readListeners(inside(section.At("static_listeners"), "listener"))
			active := inside(section.At("dynamic_listeners"), "active_state.listener")
			e.readListeners(slices.DeleteFunc(active, func(l source.Location) bool { return !l.Exists() }))
			e.refused("listener", section.At("dynamic_listeners"))
		case "ClustersConfigDump":
			clusters = true
			e.readClusters(inside(section.At("static_clusters"), "cluster"))
			e.readClusters(inside(section.At("dynamic_active_clusters"), "cluster"))
			e.refused("cluster", section.At("dynamic_warming_clusters"))
		case "RoutesConfigDump":
			e.readTables(inside(section.At("static_route_configs"), "route_config"))
			e.readTables(inside(section.At("dynamic_route_configs"), "route_config"))
		}
	}
	if bootstrap.Exists() && !listeners {
		e.readListeners(bootstrap.At("static_resources.listeners").Items())
	}
	if bootstrap.Exists() && !clusters {
		e.readClusters(bootstrap.At("static_resources.clusters").Items())
	}
}

func (e *Envoy) readListeners(items []source.Location) {
	e.Listeners = append(e.Listeners, readAll[*listenerv3.Listener](e, "listener", items)...)
}

func (e *Envoy) readClusters(items []source.Location) {
	e.clusters = append(e.clusters, readAll[*clusterv3.Cluster](e, "cluster", items)...)
}

func (e *Envoy) readTables(items []source.Location) {
	e.routes = append(e.routes, readAll[*routev3.RouteConfiguration](e, "routes", items)...)
}

// inside returns the location at a path in each item of a list.
func inside(list source.Location, path string) []source.Location {
	items := list.Items()
	for i := range items {
		items[i] = items[i].At(path)
	}
	return items
}

// readAll reads messages and skips unreadable ones.
func readAll[M proto.Message](e *Envoy, what string, items []source.Location) (out []Part[M]) {
	var empty M
	for i, at := range items {
		at = at.Called("%s %q", what, nameOf(at, i))
		msg, err := decode(at, empty.ProtoReflect().New().Interface().(M))
		e.decoded(at, err)
		if err != nil && !isUnknownField(err) {
			continue
		}
		if err == nil { // otherwise constraints would report the missing field a second time
			e.validate(at, msg)
		}
		out = append(out, Part[M]{at, msg})
	}
	return out
}

func nameOf(at source.Location, i int) string {
	return cmp.Or(at.At("name").Text(), at.Index(i).Path())
}

// refused adds faults for listeners or clusters that a running Envoy refused.
func (e *Envoy) refused(what string, list source.Location) {
	for i, item := range list.Items() {
		if at := item.At("error_state.details"); at.Exists() {
			e.faults = append(e.faults, fault(at.Called("%s %q", what, nameOf(item, i)), "Envoy refused this %s: %s", what, at.Text()))
		}
	}
}

// readBootstrap reads a bootstrap without its listeners and clusters. These are read one by one, so that a fault in one
// does not hide the others.
func (e *Envoy) readBootstrap(at source.Location) {
	e.Base = at.Called("bootstrap")
	msg, err := decode(source.Without(at, "static_resources", "listeners", "clusters"), &bootstrapv3.Bootstrap{})
	e.decoded(e.Base, err)
	if e.Bootstrap = msg; msg == nil {
		return
	}
	if err == nil {
		e.validate(e.Base, msg)
	}
	if v := msg.GetNode().GetUserAgentBuildVersion().GetVersion(); v != nil {
		e.Version = Version{int(v.GetMajorNumber()), int(v.GetMinorNumber()), int(v.GetPatch())}
	}
}

// decoded adds a fault for a message that could not be read.
func (e *Envoy) decoded(at source.Location, err error) {
	if err == nil {
		return
	}
	f := unreadable(at, err)
	if e.Dump && isUnknownField(err) { // the Envoy is newer, or built with more extensions
		f.Note, f.Text = true, "this version of tollkeeper does not know all of it: "+err.Error()
	}
	e.faults = append(e.faults, f)
}

// maxFaults bounds the faults of one listener or cluster.
const maxFaults = 5

// validate adds faults for the constraints that a message breaks.
func (e *Envoy) validate(at source.Location, msg proto.Message) {
	for _, text := range validate(msg, maxFaults) {
		field, _, _ := strings.Cut(text, ":")
		if _, last, ok := strings.Cut(field, "."); ok {
			field = last
		}
		e.faults = append(e.faults, fault(source.Find(at, field), "Envoy does not accept this: %s", text))
	}
}

// Cluster finds a cluster by name.
func (e *Envoy) Cluster(name string) (Part[*clusterv3.Cluster], bool) {
	for _, c := range e.clusters {
		if c.Msg.GetName() == name {
			return c, true
		}
	}
	return Part[*clusterv3.Cluster]{}, false
}
