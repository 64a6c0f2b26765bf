package apitest

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// partOf is the label by which everything is found and pruned. Objects that must not be pruned have the value stays.
const (
	partOf = "app.kubernetes.io/part-of"
	ours   = "tollkeeper"
	stays  = "tollkeeper-data"
)

// labelsAgree wants one label on all objects and pods, and another value of it on those that hold keys and quotas.
func labelsAgree(w world) (f faults) {
	for _, o := range w {
		want := ours
		if o.Kind == "Namespace" || o.Kind == "PersistentVolumeClaim" {
			want = stays
		}
		if got := o.Metadata.Labels[partOf]; got != want {
			f.addf("%s: has part-of %q, want %q", o, got, want)
		}
	}
	for _, d := range templates(w) {
		if got := d.v.Labels[partOf]; got != ours {
			f.addf("%s: its pods have part-of %q", d, got)
		}
	}
	for _, d := range all[appsv1.Deployment](w) {
		if len(d.v.Spec.Selector.MatchLabels) != 1 {
			f.addf("%s: its selector, which is immutable, is %v", d, d.v.Spec.Selector.MatchLabels)
		}
	}
	return f
}

// clientsAgree wants the network policies to let clients and Envoy reach Tollkeeper and DNS.
func clientsAgree(w world) (f faults) {
	d := one[appsv1.Deployment](w, "tollkeeper", "tollkeeper")
	if d == nil {
		return nil
	}
	clients := map[string]map[string]string{"a client": {"tollkeeper-client": "true"}}
	if envoy := one[appsv1.Deployment](w, "tollkeeper", "envoy"); envoy != nil {
		clients["Envoy"] = envoy.v.Spec.Template.Labels
	}
	for name, client := range clients {
		if !entersFrom(w, d, client, "grpc") {
			f.addf("%s: does not let %s in", d, name)
		}
		if !leavesTo(w, client, d.v.Spec.Template.Labels, 9001) {
			f.addf("%s: %s may not connect to it", d, name)
		}
		if !leavesTo(w, client, map[string]string{"k8s-app": "kube-dns"}, 53) {
			f.addf("%s: %s may not look up its address", d, name)
		}
	}
	return f
}

func takes(s *metav1.LabelSelector, l map[string]string) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && s != nil && sel.Matches(labels.Set(l))
}

// entersFrom reports whether a policy lets pods of the same namespace in.
func entersFrom(w world, d *named[appsv1.Deployment], from map[string]string, port string) bool {
	return slices.ContainsFunc(all[netv1.NetworkPolicy](w), func(p *named[netv1.NetworkPolicy]) bool {
		return takes(&p.v.Spec.PodSelector, d.v.Spec.Template.Labels) && slices.ContainsFunc(p.v.Spec.Ingress, func(in netv1.NetworkPolicyIngressRule) bool {
			return slices.ContainsFunc(in.Ports, func(x netv1.NetworkPolicyPort) bool { return x.Port.String() == port }) &&
				slices.ContainsFunc(in.From, func(x netv1.NetworkPolicyPeer) bool { return x.NamespaceSelector == nil && takes(x.PodSelector, from) })
		})
	})
}

// leavesTo reports whether a policy lets pods connect to others.
func leavesTo(w world, from, to map[string]string, port int32) bool {
	return slices.ContainsFunc(all[netv1.NetworkPolicy](w), func(p *named[netv1.NetworkPolicy]) bool {
		return p.Metadata.Namespace == "tollkeeper" && takes(&p.v.Spec.PodSelector, from) &&
			slices.ContainsFunc(p.v.Spec.Egress, func(out netv1.NetworkPolicyEgressRule) bool {
				return slices.ContainsFunc(out.Ports, func(x netv1.NetworkPolicyPort) bool { return x.Port.IntVal == port }) &&
					slices.ContainsFunc(out.To, func(x netv1.NetworkPolicyPeer) bool { return takes(x.PodSelector, to) })
			})
	})
}

var (
	inCluster = regexp.MustCompile(`address: ([a-z-]+)\.([a-z-]+)\.svc\.cluster\.local, port_value: (\d+)`)
	anyOfIPv4 = regexp.MustCompile(`\b0\.0\.0\.0\b`)
)

// addressesAgree wants Envoys to use existing Services, and everything to work over IPv4 and IPv6.
func addressesAgree(w world) (f faults) {
	for _, m := range all[corev1.ConfigMap](w) {
		for name, text := range m.v.Data {
			for _, a := range inCluster.FindAllStringSubmatch(text, -1) {
				s := one[corev1.Service](w, a[2], a[1])
				if s == nil || !slices.ContainsFunc(s.v.Spec.Ports, func(p corev1.ServicePort) bool { return strconv.Itoa(int(p.Port)) == a[3] }) {
					f.addf("%s: %s uses %s, and no Service has that name and port", m, name, a[0])
				}
			}
			if strings.HasSuffix(name, "envoy.yaml") && anyOfIPv4.MatchString(noComments(text)) {
				f.addf("%s: %s listens on IPv4 only", m, name)
			}
		}
	}
	for _, s := range all[corev1.Service](w) {
		if p := s.v.Spec.IPFamilyPolicy; p == nil || *p != corev1.IPFamilyPolicyPreferDualStack || len(s.v.Spec.IPFamilies) > 0 {
			f.addf("%s: does not use the IP families of the cluster: want PreferDualStack", s)
		}
	}
	for _, p := range all[netv1.NetworkPolicy](w) {
		for _, out := range p.v.Spec.Egress {
			families := make(map[bool]bool)
			for _, to := range out.To {
				if to.IPBlock != nil {
					families[strings.Contains(to.IPBlock.CIDR, ":")] = true
				}
			}
			if len(families) == 1 {
				f.addf("%s: allows one IP family only", p)
			}
		}
	}
	return f
}

func noComments(text string) string { return regexp.MustCompile(`(?m)#.*$`).ReplaceAllString(text, "") }

// room is the CPU that a node with two CPUs has left, beside the pods of the control plane and the network.
var room = resource.MustParse("900m")

// footprintAgrees wants an overlay to fit on one node with two CPUs, even while all Deployments are updated at once.
func footprintAgrees(w world) (f faults) {
	var sum resource.Quantity
	for _, d := range all[appsv1.Deployment](w) {
		if d.v.Spec.Replicas == nil {
			return nil // an autoscaler sets it, on more than one node
		}
		pods := int(*d.v.Spec.Replicas)
		if r := d.v.Spec.Strategy.RollingUpdate; d.v.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
			surge := intstr.FromString("25%")
			if r != nil && r.MaxSurge != nil {
				surge = *r.MaxSurge
			}
			n, err := intstr.GetScaledValueFromIntOrPercent(&surge, pods, true)
			if err != nil {
				f.addf("%s: %v", d, err)
			}
			pods += n
		}
		for _, c := range d.v.Spec.Template.Spec.Containers {
			for range pods {
				sum.Add(*c.Resources.Requests.Cpu())
			}
		}
	}
	if sum.Cmp(room) > 0 {
		f.addf("an update requests %s of CPU, which does not fit on a node with two", &sum)
	}
	return f
}

// spreadAgrees wants pods to request disk space, and several pods to be spread over zones and nodes.
func spreadAgrees(w world) (f faults) {
	for _, d := range all[appsv1.Deployment](w) {
		for _, c := range d.v.Spec.Template.Spec.Containers {
			if c.Resources.Requests.StorageEphemeral().IsZero() {
				f.addf("%s: requests no ephemeral storage", d)
			}
		}
		if n := d.v.Spec.Replicas; n != nil && *n == 1 && d.Metadata.Name != "tollkeeper" {
			continue
		}
		for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelHostname} {
			if !slices.ContainsFunc(d.v.Spec.Template.Spec.TopologySpreadConstraints, func(c corev1.TopologySpreadConstraint) bool {
				return c.TopologyKey == key && slices.Contains(c.MatchLabelKeys, "pod-template-hash")
			}) {
				f.addf("%s: is not spread by %s", d, key)
			}
		}
	}
	return f
}

// replicasAgree wants one process on the embedded store, and never two.
func replicasAgree(w world) (f faults) {
	for _, c := range all[corev1.PersistentVolumeClaim](w) {
		if !slices.Equal(c.v.Spec.AccessModes, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}) {
			f.addf("%s: two pods of one node can mount it", c)
		}
	}
	d := one[appsv1.Deployment](w, "tollkeeper", "tollkeeper")
	if d == nil {
		return f
	}
	if shared(d) {
		return f
	}
	scaled := len(all[autoscalingv2.HorizontalPodAutoscaler](w)) > 0
	switch {
	case d.v.Spec.Replicas == nil || *d.v.Spec.Replicas != 1 || scaled:
		f.addf("%s: runs more than one replica on the embedded store", d)
	case d.v.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType:
		f.addf("%s: a new pod would wait for the file of the old one", d)
	}
	return f
}

func variable(d *named[appsv1.Deployment], name string) string {
	for _, e := range d.v.Spec.Template.Spec.Containers[0].Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// shared reports whether several pods have one store.
func shared(d *named[appsv1.Deployment]) bool { return variable(d, "TOLLKEEPER_STORE") == "postgres" }

func keepsData(pod *corev1.PodSpec) bool {
	return slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.PersistentVolumeClaim != nil })
}
