package lint

import (
	"errors"
	"regexp"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

// envoy is what one Envoy is told: its bootstrap, or all that it has been told so far.
type envoy struct {
	spot
	dump      bool // a running Envoy said so
	version   version
	bootstrap *bootstrapv3.Bootstrap // nil if there is none
	base      spot                   // of the bootstrap
	listeners []part[*listenerv3.Listener]
	clusters  []part[*clusterv3.Cluster]
	routes    []part[*routev3.RouteConfiguration]
	managers  []*manager
	tcp       []tcpProxy
	faults    []Finding // that it could not be read as it should be
}

// part is a message with its place.
type part[M proto.Message] struct {
	spot
	msg M
}

// readBootstrap reads a bootstrap file.
func readBootstrap(doc *document) *envoy {
	e := &envoy{spot: doc.spot(), base: doc.spot()}
	e.readBase(e.spot)
	for i, s := range e.at("static_resources", "listeners").items() {
		e.addListener(s.called("listener %q", nameOf(s, i)))
	}
	for i, s := range e.at("static_resources", "clusters").items() {
		e.addCluster(s.called("cluster %q", nameOf(s, i)))
	}
	e.link()
	return e
}

func nameOf(s spot, i int) string {
	if name := s.at("name").text(); name != "" {
		return name
	}
	return s.index(i).path
}

// readBase reads a bootstrap without its listeners and clusters, which are read one by one, so that a fault in one does
// not hide the others.
func (e *envoy) readBase(s spot) {
	bare := s
	bare.doc = &document{file: s.doc.file, base: s.doc.base, textual: s.doc.textual, root: s.doc.root}
	if s.value() != nil {
		bare.near = without(s.near, "static_resources", "listeners", "clusters")
	}
	e.base = s.called("bootstrap")
	msg, err := decode(bare, &bootstrapv3.Bootstrap{})
	e.fault(e.base, err)
	if e.bootstrap = msg; msg == nil {
		return
	}
	if err == nil {
		e.check(e.base, msg)
	}
	if v := msg.GetNode().GetUserAgentBuildVersion().GetVersion(); v != nil {
		e.version = version{int(v.GetMajorNumber()), int(v.GetMinorNumber()), int(v.GetPatch())}
	}
}

// without copies a map with less in one of its members.
func without(n *node, member string, keys ...string) *node {
	inner := n.get(member)
	if inner == nil || !n.isMap || !inner.isMap {
		return n
	}
	less := &node{isMap: true, line: inner.line}
	for i, k := range inner.keys {
		keep := true
		for _, drop := range keys {
			keep = keep && flatten(k) != drop
		}
		if keep {
			less.keys, less.items, less.at = append(less.keys, k), append(less.items, inner.items[i]), append(less.at, inner.at[i])
		}
	}
	out := &node{isMap: true, line: n.line, keys: n.keys, at: n.at, items: make([]*node, len(n.items))}
	for i, item := range n.items {
		if out.items[i] = item; item == inner {
			out.items[i] = less
		}
	}
	return out
}

func (e *envoy) addListener(s spot) {
	if msg, ok := add(e, s, &listenerv3.Listener{}); ok {
		e.listeners = append(e.listeners, part[*listenerv3.Listener]{s, msg})
	}
}

func (e *envoy) addCluster(s spot) {
	if msg, ok := add(e, s, &clusterv3.Cluster{}); ok {
		e.clusters = append(e.clusters, part[*clusterv3.Cluster]{s, msg})
	}
}

func (e *envoy) addRoutes(s spot) {
	if msg, ok := add(e, s, &routev3.RouteConfiguration{}); ok {
		e.routes = append(e.routes, part[*routev3.RouteConfiguration]{s, msg})
	}
}

func add[M proto.Message](e *envoy, s spot, into M) (M, bool) {
	msg, err := decode(s, into)
	e.fault(s, err)
	var soft *unknownField
	if err != nil && !errors.As(err, &soft) {
		return msg, false
	}
	if err == nil { // else what is missing would be said twice
		e.check(s, msg)
	}
	return msg, true
}

// maxFaults bounds what is said about one listener or cluster.
const maxFaults = 5

// check notes which of Envoy's constraints a message breaks.
func (e *envoy) check(s spot, msg proto.Message) {
	for _, text := range validate(msg, maxFaults) {
		field, _, _ := strings.Cut(text, ":")
		if _, last, ok := strings.Cut(field, "."); ok {
			field = last
		}
		e.faults = append(e.faults, find(s, field).says("Envoy does not take this: %s", text))
	}
}

var faultyField = regexp.MustCompile(`unknown field "([^"]+)"|field ([\w.]+):`)

// fault notes why something could not be read.
func (e *envoy) fault(s spot, err error) {
	if err == nil {
		return
	}
	where := s
	if m := faultyField.FindStringSubmatch(err.Error()); m != nil {
		where = find(s, m[1]+m[2])
	}
	var soft *unknownField
	f := where.says("cannot be read: %v", err)
	if e.dump && errors.As(err, &soft) {
		// A running Envoy knows what it was told. It is newer, or built with more.
		f = where.says("this version of tollkeeper does not know all of it: %v", err)
		f.Severity = Info
	}
	e.faults = append(e.faults, f)
}

// find goes down to the only key of a name, and stays if there are several or none.
func find(s spot, name string) spot {
	budget := maxNodes
	var found []spot
	var walk func(spot, int)
	walk = func(at spot, depth int) {
		if budget--; budget < 0 || depth > maxDepth || len(found) > 1 {
			return
		}
		for _, k := range at.keys() {
			below := at.at(k)
			if flatten(k) == flatten(name) {
				found = append(found, below)
			}
			walk(below, depth+1)
		}
		for _, item := range at.items() {
			walk(item, depth+1)
		}
	}
	walk(s, 0)
	if len(found) != 1 {
		return s
	}
	return found[0]
}

// cluster finds a cluster by name.
func (e *envoy) cluster(name string) (part[*clusterv3.Cluster], bool) {
	for _, c := range e.clusters {
		if c.msg.GetName() == name {
			return c, true
		}
	}
	return part[*clusterv3.Cluster]{}, false
}
