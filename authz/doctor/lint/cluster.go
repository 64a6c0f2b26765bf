package lint

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

// The rules of this file look at the cluster through which Tollkeeper is asked.

// target is such a cluster, with the filter that asks it.
type target struct {
	part[*clusterv3.Cluster]
	ask *authzFilter
}

// targets are the clusters that are asked, each once for every Envoy.
func (in *Input) targets() []target {
	var out []target
	seen := make(map[*clusterv3.Cluster]bool)
	for _, a := range in.asks() {
		c, ok := a.manager.envoy.cluster(a.cluster)
		if ok && a.authz.GetGrpcService() != nil && !seen[c.msg] {
			seen[c.msg] = true
			out = append(out, target{c, a})
		}
	}
	return out
}

// unknownCluster: a filter names a cluster that is not there.
func unknownCluster(in *Input, report func(Finding)) {
	for _, a := range in.asks() {
		name := a.authz.GetGrpcService().GetEnvoyGrpc().GetClusterName()
		e := a.manager.envoy
		dynamic := e.bootstrap.GetDynamicResources().GetCdsConfig() != nil || e.bootstrap.GetDynamicResources().GetAdsConfig() != nil
		if _, ok := e.cluster(name); name == "" || ok || dynamic && !e.dump {
			continue
		}
		report(a.at("grpc_service", "envoy_grpc", "cluster_name").says("there is no cluster %q: every check fails", name))
	}
}

// protocol are the options of a cluster's HTTP, nil if there are none.
func (t *target) protocol() *httpv3.HttpProtocolOptions {
	msg, _ := unpack(t.msg.GetTypedExtensionProtocolOptions()[protocolOptions])
	p, _ := msg.(*httpv3.HttpProtocolOptions)
	return p
}

const protocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// http2 are the options of HTTP/2, and whether it is spoken at all.
func (t *target) http2() (*corev3.Http2ProtocolOptions, bool) {
	if p := t.protocol(); p != nil {
		if explicit := p.GetExplicitHttpConfig(); explicit != nil {
			return explicit.GetHttp2ProtocolOptions(), explicit.GetHttp2ProtocolOptions() != nil
		}
		if auto := p.GetAutoConfig(); auto != nil { // by ALPN, which needs TLS
			return auto.GetHttp2ProtocolOptions(), t.encrypted()
		}
		return nil, false
	}
	//lint:ignore SA1019 Envoy still takes it
	old := t.msg.GetHttp2ProtocolOptions()
	return old, old != nil
}

func notHTTP2(in *Input, report func(Finding)) {
	for _, t := range in.targets() {
		if _, ok := t.http2(); !ok {
			report(t.at("typed_extension_protocol_options").says("it does not speak HTTP/2, which gRPC needs: every check fails"))
		}
	}
}

// minPing is how often Tollkeeper takes pings. Whoever pings more often is sent away.
const minPing = 5 * time.Second

func pings(in *Input, report func(Finding)) {
	for _, t := range in.targets() {
		o, _ := t.http2()
		if k := o.GetConnectionKeepalive(); k.GetInterval() != nil && k.GetInterval().AsDuration() < minPing {
			report(t.at("typed_extension_protocol_options").key(protocolOptions).at("explicit_http_config", "http2_protocol_options", "connection_keepalive", "interval").says(
				"it pings every %v, and Tollkeeper closes connections that ping more often than every %v", k.GetInterval().AsDuration(), minPing))
		}
	}
}

// pinned: all checks of a worker go over one connection to one replica.
func pinned(in *Input, report func(Finding)) {
	for _, t := range in.targets() {
		if t.msg.GetType() == clusterv3.Cluster_LOGICAL_DNS {
			report(t.at("type").says("with LOGICAL_DNS every connection goes to the first address of the name: other replicas get nothing"))
			continue
		}
		if t.msg.GetType() != clusterv3.Cluster_STRICT_DNS {
			continue
		}
		for _, host := range t.hosts() {
			if svc := in.serviceOf(host); svc != nil && svc.at("spec", "clusterIP").text() != "None" && svc.at("spec", "type").text() != "ExternalName" && !in.alone(svc) {
				report(t.at("load_assignment").says("%s is the address of a Service that is not headless: all checks of a worker stay with the replica that it found first", host))
			}
		}
	}
}

// alone reports whether a Service has one pod, by the only workload of its in the files. An autoscaler may make more.
func (in *Input) alone(svc *object) bool {
	var found []*object
	for _, w := range in.objects {
		if t := w.template(); t.is && len(svc.at("spec", "selector").keys()) > 0 && w.namespace == svc.namespace && labelled(svc.at("spec", "selector"), t.at("metadata", "labels")) {
			found = append(found, w)
		}
	}
	if len(found) != 1 || found[0].kind == "DaemonSet" {
		return false
	}
	if n := found[0].at("spec", "replicas"); n.is && n.text() != "1" {
		return false
	}
	return !slices.ContainsFunc(in.objectsOf("autoscaling", "HorizontalPodAutoscaler"), func(h *object) bool {
		ref := h.at("spec", "scaleTargetRef")
		return h.namespace == svc.namespace && ref.at("kind").text() == found[0].kind && ref.at("name").text() == found[0].name
	})
}

// serviceOf finds the Service that a name in the cluster belongs to.
func (in *Input) serviceOf(host string) *object {
	host = strings.TrimSuffix(strings.TrimSuffix(host, "."), ".cluster.local")
	host = strings.TrimSuffix(host, ".svc")
	name, namespace, _ := strings.Cut(host, ".")
	for _, o := range in.objectsOf("", "Service") {
		if o.name == name && (o.namespace == namespace || namespace == "") {
			return o
		}
	}
	return nil
}

// hosts are the addresses of a cluster that are in the file.
func (t *target) hosts() []string {
	var out []string
	for _, l := range t.msg.GetLoadAssignment().GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			if a := e.GetEndpoint().GetAddress().GetSocketAddress(); a != nil {
				out = append(out, a.GetAddress())
			}
		}
	}
	return out
}

// local reports whether a cluster does not leave the machine.
func (t *target) local() bool {
	addresses := 0
	for _, l := range t.msg.GetLoadAssignment().GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			addresses++
			a := e.GetEndpoint().GetAddress()
			if a.GetPipe() == nil && a.GetEnvoyInternalAddress() == nil && !loopback(a.GetSocketAddress().GetAddress()) {
				return false
			}
		}
	}
	return addresses > 0
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback()
}

const defaultConnect = 5 * time.Second

func connects(in *Input, report func(Finding)) {
	for _, t := range in.targets() {
		connect := defaultConnect
		if c := t.msg.GetConnectTimeout(); c != nil {
			connect = c.AsDuration()
		}
		if wait := t.ask.authz.GetGrpcService().GetTimeout(); wait != nil && wait.AsDuration() > 0 && connect >= wait.AsDuration() {
			report(t.at("connect_timeout").says("connecting may take %v and a check only %v: a host that does not answer costs whole checks", connect, wait.AsDuration()))
		}
	}
}

const defaultMaxRequests = 1024

func breakers(in *Input, report func(Finding)) {
	for _, t := range in.targets() {
		high := false
		for _, b := range t.msg.GetCircuitBreakers().GetThresholds() {
			high = high || b.GetPriority() == corev3.RoutingPriority_DEFAULT && b.GetMaxRequests().GetValue() > defaultMaxRequests
		}
		if !high {
			report(t.at("circuit_breakers").says("more than %d checks at a time are refused, which is an outage at the first burst", defaultMaxRequests))
		}
	}
}

func unhealthy(in *Input, report func(Finding)) {
	for _, t := range in.targets() {
		eds := t.msg.GetType() == clusterv3.Cluster_EDS // whoever says which hosts there are takes those away that are not ready
		if len(t.msg.GetHealthChecks()) == 0 && t.msg.GetOutlierDetection() == nil && !t.local() && !eds {
			report(t.at("health_checks").says("replicas that are gone are asked until a connection to them fails"))
		}
	}
}
