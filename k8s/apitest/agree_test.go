package apitest

import (
	"fmt"
	"maps"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"

	certv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	promv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	psaapi "k8s.io/pod-security-admission/api"
	psa "k8s.io/pod-security-admission/policy"
)

// faults are the mistakes that a check has found.
type faults []string

func (f *faults) addf(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// agreements are the checks of objects that refer to each other.
var agreements = map[string]func(w world) faults{
	"namespaces":       namespacesAgree,
	"services":         servicesAgree,
	"probes":           probesAgree,
	"volumes":          volumesAgree,
	"budgets":          budgetsAgree,
	"network policies": networkPoliciesAgree,
	"pod security":     podsAreRestricted,
	"resources":        resourcesAgree,
	"replicas":         replicasAgree,
	"PostgreSQL":       sharedStoreAgrees,
	"metrics":          monitorsAgree,
	"Istio":            istioAgrees,
	"Envoy filters":    envoyFiltersAreValid,
	"Envoy Gateway":    gatewayAgrees,
	"labels":           labelsAgree,
	"clients":          clientsAgree,
	"addresses":        addressesAgree,
	"footprint":        footprintAgrees,
	"nodes":            spreadAgrees,
}

// namespacesAgree wants every object in an existing namespace: ours, or one that the user has.
func namespacesAgree(w world) (f faults) {
	for _, o := range w {
		if ns := o.Metadata.Namespace; o.Kind != "Namespace" && !slices.Contains([]string{"tollkeeper", "default", "istio-system"}, ns) {
			f.addf("%s: the namespace %q does not exist", o, ns)
		}
	}
	return f
}

// selected are the Deployments of a namespace whose pods a selector selects.
func selected(w world, namespace string, s *metav1.LabelSelector) (found []*named[appsv1.Deployment]) {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil
	}
	for _, d := range all[appsv1.Deployment](w) {
		if d.Metadata.Namespace == namespace && sel.Matches(labels.Set(d.v.Spec.Template.Labels)) {
			found = append(found, d)
		}
	}
	return found
}

func selectedByLabels(w world, namespace string, l map[string]string) []*named[appsv1.Deployment] {
	return selected(w, namespace, &metav1.LabelSelector{MatchLabels: l})
}

// podsOf is the template of the pods of a Deployment or a Job.
type podsOf struct {
	*object
	v *corev1.PodTemplateSpec
}

func templates(w world) (found []podsOf) {
	for _, o := range w {
		switch v := o.value.(type) {
		case *appsv1.Deployment:
			found = append(found, podsOf{o, &v.Spec.Template})
		case *batchv1.Job:
			found = append(found, podsOf{o, &v.Spec.Template})
		}
	}
	return found
}

// hasPort reports whether the pods of a Deployment have a port, by number or name.
func hasPort(d *appsv1.Deployment, p intstr.IntOrString) bool {
	for _, c := range d.Spec.Template.Spec.Containers {
		for _, have := range c.Ports {
			if p.StrVal != "" && have.Name == p.StrVal || p.StrVal == "" && have.ContainerPort == p.IntVal {
				return true
			}
		}
	}
	return false
}

// servicesAgree wants each Service to select pods of one Deployment, at ports that they have, and to name its protocols.
func servicesAgree(w world) (f faults) {
	for _, s := range all[corev1.Service](w) {
		pods := selectedByLabels(w, s.Metadata.Namespace, s.v.Spec.Selector)
		if len(pods) != 1 {
			f.addf("%s: selects the pods of %d Deployments", s, len(pods))
		}
		for _, p := range s.v.Spec.Ports {
			for _, d := range pods {
				if !hasPort(d.v, p.TargetPort) {
					f.addf("%s: %s has no port %s", s, d, p.TargetPort.String())
				}
			}
			if s.v.Spec.ClusterIP == corev1.ClusterIPNone && p.Name == "grpc" && s.Metadata.Name != "tollkeeper-pods" {
				f.addf("%s: is headless, so its address changes with every restart of the pod", s)
			}
			if p.AppProtocol == nil || p.Name == "grpc" && *p.AppProtocol != "grpc" {
				f.addf("%s: port %s does not name its protocol", s, p.Name)
			}
		}
	}
	for _, d := range all[appsv1.Deployment](w) {
		if own := labels.Set(d.v.Spec.Template.Labels); !labels.SelectorFromSet(d.v.Spec.Selector.MatchLabels).Matches(own) {
			f.addf("%s: does not select its own pods", d)
		}
		if len(selected(w, d.Metadata.Namespace, d.v.Spec.Selector)) != 1 {
			f.addf("%s: selects pods of another Deployment", d)
		}
	}
	return f
}

// probesAgree wants probes of existing ports and of services that the server knows.
func probesAgree(w world) (f faults) {
	for _, d := range all[appsv1.Deployment](w) {
		for _, c := range d.v.Spec.Template.Spec.Containers {
			if c.ReadinessProbe == nil {
				f.addf("%s: has no readiness probe", d)
			}
			if live := c.LivenessProbe; live == nil || live.HTTPGet != nil && reflect.DeepEqual(live.HTTPGet, c.ReadinessProbe.HTTPGet) {
				f.addf("%s: has no liveness probe, or one that fails while it drains", d)
			}
			for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
				switch {
				case p == nil:
				case p.GRPC != nil:
					if !hasPort(d.v, intstr.FromInt32(p.GRPC.Port)) {
						f.addf("%s: probes port %d, which it does not have", d, p.GRPC.Port)
					}
					if s := p.GRPC.Service; s != nil && *s != "" && *s != "envoy.service.auth.v3.Authorization" {
						f.addf("%s: probes the service %q", d, *s)
					}
				case p.HTTPGet != nil && !hasPort(d.v, p.HTTPGet.Port), p.TCPSocket != nil && !hasPort(d.v, p.TCPSocket.Port):
					f.addf("%s: probes a port that it does not have", d)
				}
			}
		}
	}
	return f
}

// secrets are the Secrets that are made outside of the overlays, with their keys: by hand, or by cert-manager.
func secrets() map[string][]string {
	known := map[string][]string{
		"tollkeeper": {"pepper"}, "tollkeeper-database": {"url", "installation"}, "tollkeeper-database-owner": {"url"},
	}
	w, err := build(fromDisk(), "standalone/cert-manager")
	if err != nil {
		panic(err)
	}
	for _, c := range all[certv1.Certificate](w) {
		known[c.v.Spec.SecretName] = []string{"tls.crt", "tls.key", "ca.crt"}
	}
	return known
}

// kept are the objects that are applied before an overlay and stay when it is removed.
func kept() world {
	w, err := build(fromDisk(), "namespace")
	if err != nil {
		panic(err)
	}
	return w
}

// volumesAgree wants each volume to exist and to be mounted, and to hold each file that a variable or an argument names.
func volumesAgree(w world) (f faults) {
	known := secrets()
	for _, d := range templates(w) {
		spec := d.v.Spec
		content := make(map[string][]string) // of a volume
		for _, v := range spec.Volumes {
			switch {
			case v.ConfigMap != nil:
				m := one[corev1.ConfigMap](w, d.Metadata.Namespace, v.ConfigMap.Name)
				if m == nil {
					f.addf("%s: no ConfigMap %s", d, v.ConfigMap.Name)
					continue
				}
				content[v.Name] = slices.Collect(maps.Keys(m.v.Data))
			case v.Secret != nil:
				if content[v.Name] = known[v.Secret.SecretName]; content[v.Name] == nil {
					f.addf("%s: nothing creates the Secret %s", d, v.Secret.SecretName)
				}
			case v.PersistentVolumeClaim != nil:
				if one[corev1.PersistentVolumeClaim](kept(), d.Metadata.Namespace, v.PersistentVolumeClaim.ClaimName) == nil {
					f.addf("%s: no claim %s", d, v.PersistentVolumeClaim.ClaimName)
				}
			}
		}
		for _, c := range spec.Containers {
			for _, e := range c.Env {
				if e.ValueFrom == nil || e.ValueFrom.SecretKeyRef == nil {
					continue
				}
				if r := e.ValueFrom.SecretKeyRef; !slices.Contains(known[r.Name], r.Key) || r.Optional != nil {
					f.addf("%s: the Secret %s need not have the key %s", d, r.Name, r.Key)
				}
			}
			mounts := make(map[string]string)
			for _, m := range c.VolumeMounts {
				if !slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
					f.addf("%s: mounts %s, which is not a volume", d, m.Name)
				}
				mounts[m.MountPath] = m.Name
			}
			if len(mounts) != len(spec.Volumes) {
				f.addf("%s: %d volumes, %d of them mounted", d, len(spec.Volumes), len(mounts))
			}
			for _, file := range filesOf(w, d, &c) {
				at, ok := mounts[path.Dir(file)]
				if !ok || !slices.Contains(content[at], path.Base(file)) {
					f.addf("%s: uses the file %s, which no volume holds", d, file)
				}
			}
		}
	}
	return f
}

// namedFile matches paths of mounted files in a configuration.
var namedFile = regexp.MustCompile(`/(?:run|etc)/[a-z/-]+\.(?:yaml|crt|key)\b|/run/tollkeeper/secrets/[a-z-]+`)

// filesOf are the files that the arguments, variables and configuration of a container name.
func filesOf(w world, d podsOf, c *corev1.Container) (files []string) {
	for _, a := range c.Args {
		if _, file, _ := strings.Cut(a, "="); strings.HasSuffix(a, ".yaml") || strings.Contains(a, "-file=") {
			files = append(files, max(file, strings.TrimPrefix(a, "--config=")))
		}
	}
	for _, e := range c.Env {
		if strings.HasSuffix(e.Name, "_FILE") {
			files = append(files, e.Value)
		}
	}
	for _, v := range d.v.Spec.Volumes {
		if v.ConfigMap == nil {
			continue
		}
		m := one[corev1.ConfigMap](w, d.Metadata.Namespace, v.ConfigMap.Name)
		if m == nil || v.Name != "config" {
			continue
		}
		for _, text := range m.v.Data {
			files = append(files, namedFile.FindAllString(text, -1)...)
		}
	}
	return files
}

// budgetsAgree wants disruption budgets, autoscalers and topology constraints to select existing Deployments.
func budgetsAgree(w world) (f faults) {
	for _, b := range all[policyv1.PodDisruptionBudget](w) {
		if len(selected(w, b.Metadata.Namespace, b.v.Spec.Selector)) != 1 {
			f.addf("%s: selects no Deployment", b)
		}
		if m := b.v.Spec.MaxUnavailable; m == nil || m.String() == "0" {
			f.addf("%s: prevents the drain of a node", b)
		}
	}
	for _, h := range all[autoscalingv2.HorizontalPodAutoscaler](w) {
		d := one[appsv1.Deployment](w, h.Metadata.Namespace, h.v.Spec.ScaleTargetRef.Name)
		if d == nil {
			f.addf("%s: scales nothing", h)
		} else if d.v.Spec.Replicas != nil {
			f.addf("%s: %s sets the number of replicas, which undoes the autoscaler", h, d)
		}
	}
	for _, d := range all[appsv1.Deployment](w) {
		for _, c := range d.v.Spec.Template.Spec.TopologySpreadConstraints {
			if len(selected(w, d.Metadata.Namespace, c.LabelSelector)) != 1 {
				f.addf("%s: spreads the pods of another Deployment", d)
			}
		}
	}
	return f
}

// networkPoliciesAgree wants policies to select existing pods and ports, and everything else to be denied.
func networkPoliciesAgree(w world) (f faults) {
	denied := false
	for _, p := range all[netv1.NetworkPolicy](w) {
		found := selected(w, p.Metadata.Namespace, &p.v.Spec.PodSelector)
		if p.Metadata.Name == "default-deny" {
			denied = len(p.v.Spec.Ingress) == 0 && len(p.v.Spec.Egress) == 0 && len(p.v.Spec.PolicyTypes) == 2 && len(p.v.Spec.PodSelector.MatchLabels) == 0
			continue
		}
		own := func(d podsOf) bool { return takes(&p.v.Spec.PodSelector, d.v.Labels) }
		if some := templates(w); len(some) > 0 && !slices.ContainsFunc(some, own) && p.Metadata.Name != "tollkeeper-clients" {
			f.addf("%s: selects no pods", p)
		}
		for _, in := range p.v.Spec.Ingress {
			for _, port := range in.Ports {
				for _, d := range found {
					if port.Port.IntVal != hbone && !hasPort(d.v, *port.Port) {
						f.addf("%s: %s has no port %s", p, d, port.Port.String())
					}
				}
			}
		}
		for _, out := range p.v.Spec.Egress {
			for _, to := range out.To {
				if to.PodSelector == nil || to.NamespaceSelector != nil {
					continue
				}
				targets := selected(w, p.Metadata.Namespace, to.PodSelector)
				if len(targets) != 1 || !hasPort(targets[0].v, *out.Ports[0].Port) {
					f.addf("%s: leads to no pods, or to a port that they do not have", p)
				}
			}
		}
	}
	if ours := all[appsv1.Deployment](w); len(ours) > 0 && !denied {
		f.addf("no policy denies traffic by default")
	}
	return f
}

// hbone is the port at which an ambient mesh reaches every pod.
const hbone = 15008

// podsAreRestricted applies the restricted Pod Security Standard, as admission does, and more.
func podsAreRestricted(w world) (f faults) {
	evaluator, err := psa.NewEvaluator(psa.DefaultChecks(), nil)
	if err != nil {
		return faults{err.Error()}
	}
	for _, d := range templates(w) {
		pod := d.v
		results := evaluator.EvaluatePod(psaapi.LevelVersion{Level: psaapi.LevelRestricted, Version: psaapi.LatestVersion()}, &pod.ObjectMeta, &pod.Spec)
		if sum := psa.AggregateCheckResults(results); !sum.Allowed {
			f.addf("%s: %s", d, sum.ForbiddenDetail())
		}
		if pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken {
			f.addf("%s: mounts a token for the API", d)
		}
		if s := pod.Spec.SecurityContext; keepsData(&pod.Spec) && (s.FSGroup == nil || s.FSGroupChangePolicy == nil || *s.FSGroupChangePolicy != corev1.FSGroupChangeOnRootMismatch) {
			f.addf("%s: every start makes the files on its volume readable for its group", d)
		}
		for _, c := range pod.Spec.Containers {
			if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
				f.addf("%s: has a writable root file system", d)
			}
		}
	}
	return f
}

// resourcesAgree wants requests and limits, and the Go runtime to know the limits.
func resourcesAgree(w world) (f faults) {
	for _, d := range templates(w) {
		for _, c := range d.v.Spec.Containers {
			if c.Resources.Requests.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() || c.Resources.Limits.Memory().IsZero() {
				f.addf("%s: has no requests or no memory limit", d)
			}
			for _, e := range c.Env {
				ref := e.ValueFrom
				if ref == nil || ref.ResourceFieldRef == nil {
					continue
				}
				r := ref.ResourceFieldRef
				kind, what, _ := strings.Cut(r.Resource, ".")
				of := map[string]corev1.ResourceList{"requests": c.Resources.Requests, "limits": c.Resources.Limits}[kind]
				if q := of[corev1.ResourceName(what)]; q.IsZero() || r.ContainerName != c.Name {
					f.addf("%s: takes %s from %s, which is not set", d, e.Name, r.Resource)
				}
			}
		}
	}
	return f
}

// monitorsAgree wants each ServiceMonitor to find a port of a Service, on which metrics are served.
func monitorsAgree(w world) (f faults) {
	for _, m := range all[promv1.ServiceMonitor](w) {
		found := false
		for _, s := range all[corev1.Service](w) {
			if !labels.SelectorFromSet(m.v.Spec.Selector.MatchLabels).Matches(labels.Set(s.Metadata.Labels)) {
				continue
			}
			for _, e := range m.v.Spec.Endpoints {
				found = found || slices.ContainsFunc(s.v.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == e.Port })
			}
		}
		if !found {
			f.addf("%s: finds no port of a Service", m)
		}
		d := one[appsv1.Deployment](w, "tollkeeper", "tollkeeper")
		if d == nil || !hasPort(d.v, intstr.FromString("metrics")) || !strings.HasSuffix(variable(d, "TOLLKEEPER_LISTEN_METRICS"), ":9004") {
			f.addf("%s: nothing serves metrics", m)
		}
	}
	return f
}
