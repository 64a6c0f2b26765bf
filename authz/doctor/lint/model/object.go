package model

import (
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// API groups.
const (
	Core          = ""
	EnvoyGateway  = "gateway.envoyproxy.io"
	GatewayAPI    = "gateway.networking.k8s.io"
	IstioNetwork  = "networking.istio.io"
	IstioSecurity = "security.istio.io"
	networking    = "networking.k8s.io"
	autoscaling   = "autoscaling"
)

// RootNamespace is the default namespace of Istio's policies for the whole mesh.
const RootNamespace = "istio-system"

// Object is a Kubernetes object.
type Object struct {
	source.Location
	Group, Kind     string
	Namespace, Name string
}

func readObject(at source.Location) *Object {
	o := &Object{Kind: at.At("kind").Text(), Name: at.At("metadata.name").Text(), Namespace: at.At("metadata.namespace").Text()}
	if group, _, ok := strings.Cut(at.At("apiVersion").Text(), "/"); ok {
		o.Group = group
	}
	if o.Namespace == "" {
		o.Namespace = "default"
	}
	title := o.Kind
	if o.Name != "" { // otherwise the file only looks like an object
		title += " " + o.Namespace + "/" + o.Name
	}
	o.Location = at.Called("%s", title)
	return o
}

// judgedKinds are the kinds that rules look at, by group.
var judgedKinds = map[string][]string{
	IstioSecurity: {"AuthorizationPolicy"},
	IstioNetwork:  {"DestinationRule", "EnvoyFilter"},
	EnvoyGateway:  {"SecurityPolicy", "ClientTrafficPolicy", "BackendTrafficPolicy", "EnvoyPatchPolicy", "Backend", "EnvoyGateway"},
}

func (o *Object) isJudged() bool { return slices.Contains(judgedKinds[o.Group], o.Kind) }

// Label is a label of the object.
func (o *Object) Label(name string) string { return o.At("metadata.labels").Key(name).Text() }

// Annotation is an annotation of the object.
func (o *Object) Annotation(name string) source.Location {
	return o.At("metadata.annotations").Key(name)
}

// Targets are references to the targets of a policy.
func (o *Object) Targets() []source.Location {
	out := o.At("spec.targetRefs").Items()
	if one := o.At("spec.targetRef"); one.Exists() {
		out = append(out, one)
	}
	return out
}

// PodTemplate is the template of a workload's pods. It does not exist for other kinds.
func (o *Object) PodTemplate() source.Location {
	if !slices.Contains([]string{"Deployment", "StatefulSet", "DaemonSet"}, o.Kind) {
		return o.Nothing()
	}
	return o.At("spec.template")
}

// Objects are the objects of all files.
type Objects []*Object

// Of are the objects of a kind.
func (all Objects) Of(group, kind string) Objects {
	var out Objects
	for _, o := range all {
		if o.Group == group && o.Kind == kind {
			out = append(out, o)
		}
	}
	return out
}

// In are the objects of a namespace.
func (all Objects) In(namespace string) Objects {
	var out Objects
	for _, o := range all {
		if o.Namespace == namespace {
			out = append(out, o)
		}
	}
	return out
}

// Find finds an object, nil if it is not in the files.
func (all Objects) Find(group, kind, namespace, name string) *Object {
	return all.Of(group, kind).In(namespace).Named(name)
}

// Named is the first object of a name, nil if there is none.
func (all Objects) Named(name string) *Object {
	for _, o := range all {
		if o.Name == name {
			return o
		}
	}
	return nil
}

// Service finds the Service with a DNS name in the cluster, nil if it is not in the files.
func (all Objects) Service(host string) *Object {
	host = strings.TrimSuffix(strings.TrimSuffix(host, "."), ".cluster.local")
	name, namespace, _ := strings.Cut(strings.TrimSuffix(host, ".svc"), ".")
	for _, o := range all.Of(Core, "Service") {
		if o.Name == name && (o.Namespace == namespace || namespace == "") {
			return o
		}
	}
	return nil
}

// HasOnePod reports whether a Service has a single pod: one workload in the files with one replica and no autoscaler.
func (all Objects) HasOnePod(service *Object) bool {
	selector := service.At("spec.selector")
	var found Objects
	for _, w := range all.In(service.Namespace) {
		if t := w.PodTemplate(); t.Exists() && len(selector.Keys()) > 0 && hasLabels(selector, t.At("metadata.labels")) {
			found = append(found, w)
		}
	}
	if len(found) != 1 || found[0].Kind == "DaemonSet" {
		return false
	}
	if n := found[0].At("spec.replicas"); n.Exists() && n.Text() != "1" {
		return false
	}
	return !slices.ContainsFunc(all.Of(autoscaling, "HorizontalPodAutoscaler").In(service.Namespace), func(h *Object) bool {
		ref := h.At("spec.scaleTargetRef")
		return ref.At("kind").Text() == found[0].Kind && ref.At("name").Text() == found[0].Name
	})
}

// Selects reports whether a label selector matches labels. An empty one matches all.
func Selects(selector, labels source.Location) bool {
	return hasLabels(selector.At("matchLabels"), labels) && !selector.At("matchExpressions").Any(func(e source.Location) bool {
		label := labels.Key(e.At("key").Text())
		listed := e.At("values").Has(label.Text())
		switch e.At("operator").Text() {
		case "In":
			return !label.Exists() || !listed
		case "NotIn":
			return label.Exists() && listed
		case "Exists":
			return !label.Exists()
		case "DoesNotExist":
			return label.Exists()
		}
		return true
	})
}

// hasLabels reports whether labels have all wanted labels.
func hasLabels(want, labels source.Location) bool {
	return !slices.ContainsFunc(want.Keys(), func(k string) bool {
		return !labels.Key(k).Exists() || labels.Key(k).Text() != want.Key(k).Text()
	})
}
