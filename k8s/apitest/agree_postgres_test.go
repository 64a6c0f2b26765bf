package apitest

import (
	"slices"
	"strconv"
	"time"

	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/encoding/protojson"
	istionet "istio.io/api/networking/v1alpha3"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// sharedStoreAgrees wants several pods with one database to be replaced without a gap, to tell the right database from an empty one, and
// to reach it.
func sharedStoreAgrees(w world) (f faults) {
	for _, d := range templates(w) {
		owner := slices.ContainsFunc(d.v.Spec.Volumes, func(v corev1.Volume) bool {
			return v.Secret != nil && v.Secret.SecretName == "tollkeeper-database-owner"
		})
		if owner && d.Kind != "Job" {
			f.addf("%s: has the password of the owner of the tables", d)
		}
		if owner && !reachesDatabase(w, d.v.Labels) {
			f.addf("%s: may not connect to the database", d)
		}
	}
	d := one[appsv1.Deployment](w, "tollkeeper", "tollkeeper")
	if d == nil || !shared(d) {
		return f
	}
	if keepsData(&d.v.Spec.Template.Spec) {
		f.addf("%s: mounts one volume in several pods", d)
	}
	if !reachesDatabase(w, d.v.Spec.Template.Labels) {
		f.addf("%s: may not connect to the database", d)
	}
	if !slices.ContainsFunc(d.v.Spec.Template.Spec.Containers[0].Env, func(e corev1.EnvVar) bool {
		return e.Name == "TOLLKEEPER_STORE_POSTGRES_INSTALLATION" && e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil
	}) {
		f.addf("%s: a new pod accepts an empty database", d)
	}
	f = append(f, rolloutAgrees(w, d)...)
	return append(f, ejectionAgrees(w)...)
}

// rolloutAgrees wants a new pod to be ready before an old one ends, and the old one to go on until Envoy has noticed.
func rolloutAgrees(w world, d *named[appsv1.Deployment]) (f faults) {
	none := intstr.FromInt32(0)
	r := d.v.Spec.Strategy.RollingUpdate
	if r == nil || r.MaxUnavailable == nil || *r.MaxUnavailable != none || r.MaxSurge == nil || *r.MaxSurge == none {
		f.addf("%s: ends a pod before another one is ready", d)
		return f
	}
	delay, err := time.ParseDuration(variable(d, "TOLLKEEPER_SHUTDOWN_DELAY"))
	if err != nil || delay <= envoyNotices() {
		f.addf("%s: ends after %v, and Envoy takes up to %v to notice", d, delay, envoyNotices())
	}
	const afterDelay = 10 * time.Second // for running checks, and for leases
	if grace := *d.v.Spec.Template.Spec.TerminationGracePeriodSeconds; delay+afterDelay >= time.Duration(grace)*time.Second {
		f.addf("%s: is killed while it returns its leases", d)
	}
	scalers := all[autoscalingv2.HorizontalPodAutoscaler](w)
	if len(scalers) == 0 {
		f.addf("%s: nothing says how many pods there are", d)
	}
	for _, h := range scalers {
		if h.v.Spec.MinReplicas == nil || *h.v.Spec.MinReplicas < 2 {
			f.addf("%s: one pod may be all there are", h)
		}
		const free = 97 // of PostgreSQL's default for max_connections, 100, of which 3 are reserved
		each, err := strconv.Atoi(variable(d, "TOLLKEEPER_STORE_POSTGRES_MAX_CONNECTIONS"))
		if pods := int(h.v.Spec.MaxReplicas) + r.MaxSurge.IntValue(); err != nil || pods*(each+1) > free {
			f.addf("%s: %d pods with %d connections each are too many for PostgreSQL's default", h, pods, each+1)
		}
	}
	return f
}

// ejectionAgrees wants Envoys of a control plane to stop asking a pod that does not answer any more. A plain Envoy has health checks.
func ejectionAgrees(w world) (f faults) {
	for _, r := range all[istionet.DestinationRule](w) {
		if r.v.GetTrafficPolicy().GetOutlierDetection() == nil {
			f.addf("%s: asks a pod whose node is gone", r)
		}
	}
	for _, s := range all[egv1a1.SecurityPolicy](w) {
		if b := s.v.Spec.ExtAuth.GRPC.BackendSettings; b == nil || b.HealthCheck == nil || b.HealthCheck.Passive == nil {
			f.addf("%s: asks a pod whose node is gone", s)
		}
	}
	return f
}

// reachesDatabase reports whether pods may connect to the port of PostgreSQL somewhere, and look up names.
func reachesDatabase(w world, from map[string]string) bool {
	opens := func(p *named[netv1.NetworkPolicy]) bool {
		return takes(&p.v.Spec.PodSelector, from) && slices.ContainsFunc(p.v.Spec.Egress, func(out netv1.NetworkPolicyEgressRule) bool {
			return slices.ContainsFunc(out.Ports, func(x netv1.NetworkPolicyPort) bool { return x.Port.IntVal == 5432 })
		})
	}
	return leavesTo(w, from, map[string]string{"k8s-app": "kube-dns"}, 53) && slices.ContainsFunc(all[netv1.NetworkPolicy](w), opens)
}

// envoyNotices is how long the Envoy of the standalone overlay takes to see that a Tollkeeper leaves.
func envoyNotices() time.Duration {
	for _, c := range standaloneClusters() {
		if c.Name == "tollkeeper" {
			h := c.HealthChecks[0]
			return time.Duration(h.UnhealthyThreshold.Value)*h.Interval.AsDuration() + h.Timeout.AsDuration()
		}
	}
	panic("the standalone Envoy has no cluster tollkeeper")
}

func standaloneClusters() []*clusterv3.Cluster {
	on := fromDisk()
	raw, err := on.ReadFile("/k8s/standalone/envoy.yaml")
	if err != nil {
		panic(err) // the repository is incomplete
	}
	var b bootstrapv3.Bootstrap
	if raw, err = yaml.YAMLToJSON(raw); err == nil {
		err = protojson.Unmarshal(raw, &b)
	}
	if err != nil {
		panic(err)
	}
	return b.StaticResources.Clusters
}
