package lint

import (
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
)

// A configuration in a ConfigMap is completed by what stands beside it: the environment of the pods, and who may reach
// them.

// workloads are the kinds that hold a pod template.
var workloads = []string{"Deployment", "StatefulSet", "DaemonSet"}

// template is that of a workload's pods, and not one if it is of another kind.
func (o *object) template() spot {
	if !slices.Contains(workloads, o.kind) {
		return spot{doc: o.doc}
	}
	return o.at("spec", "template")
}

// pods are the templates of the pods that a configuration is for: those that mount it, or all of its namespace if none does.
func (in *Input) pods(o *Own) []spot {
	if o.pod.is {
		return []spot{o.pod}
	}
	var all, mount []spot
	for _, w := range in.objects {
		t := w.template()
		if o.namespace == "" || w.namespace != o.namespace || !t.is {
			continue
		}
		all = append(all, t)
		if slices.ContainsFunc(t.at("spec", "volumes").items(), func(v spot) bool { return v.at("configMap", "name").text() == o.configMap }) {
			mount = append(mount, t)
		}
	}
	if len(mount) > 0 {
		return mount
	}
	return all
}

// variables are those of a pod that Tollkeeper looks at, with their values. Those of a container itself count more than
// those of the ConfigMaps that it takes in.
func (in *Input) variables(pod spot, namespace string) map[string]spot {
	out := make(map[string]spot)
	add := func(name string, value spot) {
		if strings.HasPrefix(name, config.EnvPrefix) && value.is {
			out[name] = value.called("%s, variable %s", pod.object, name)
		}
	}
	for _, c := range pod.at("spec", "containers").items() {
		for _, from := range c.at("envFrom").items() {
			data := in.dataOf(from.at("configMapRef"), namespace)
			for _, k := range data.keys() {
				add(from.at("prefix").text()+k, data.key(k))
			}
		}
		for _, v := range c.at("env").items() {
			ref := v.at("valueFrom", "configMapKeyRef")
			add(v.at("name").text(), in.dataOf(ref, namespace).key(ref.at("key").text()))
			add(v.at("name").text(), v.at("value"))
		}
	}
	return out
}

// dataOf is what a ConfigMap holds that is referred to by name, as far as it is in the files.
func (in *Input) dataOf(ref spot, namespace string) spot {
	if o := in.objectCalled("", "ConfigMap", namespace, ref.at("name").text()); ref.is && o != nil {
		return o.at("data")
	}
	return spot{doc: ref.doc}
}

// complete puts the environment of the pods over the configurations. One of pods that have nothing but an environment is
// added.
func (in *Input) complete() {
	var covered []string
	for i, o := range in.owns {
		full := *o
		full.variables = make(map[string]spot)
		for _, p := range in.pods(o) {
			covered = append(covered, p.doc.file+p.path+p.object)
			maps.Copy(full.variables, in.variables(p, o.namespace))
		}
		if len(full.variables) > 0 {
			full.read()
			in.owns[i] = &full
		}
	}
	for _, w := range in.objects {
		t := w.template()
		o := &Own{spot: w.spot, pod: t, namespace: w.namespace, variables: in.variables(t, w.namespace)}
		if len(o.variables) == 0 || !ofPods(t) || slices.Contains(covered, t.doc.file+t.path+t.object) {
			continue
		}
		o.read()
		if o.fault != nil && !o.byVariable() {
			continue // of a file that is not here, if it is one
		}
		if o.fault != nil || !reflect.DeepEqual(o.Config, config.Default()) {
			in.owns = append(in.owns, o)
		}
	}
}

// ofPods reports whether a template is one of pods, and not a patch for one.
func ofPods(template spot) bool {
	return slices.ContainsFunc(template.at("spec", "containers").items(), func(c spot) bool { return c.at("image").is })
}

// everyPod reports whether something holds for the pods of a configuration. Of pods that are not in the files it is asked
// as of one that has no labels.
func (in *Input) everyPod(o *Own, holds func(pod spot) bool) bool {
	pods := in.pods(o)
	if len(pods) == 0 {
		return o.namespace != "" && holds(spot{doc: o.doc})
	}
	return !slices.ContainsFunc(pods, func(p spot) bool { return !holds(p) })
}

// grpcPort is the port for checks.
func (o *Own) grpcPort() string {
	_, port, _ := net.SplitHostPort(o.Config.Listen.GRPC)
	return port
}

// meshed reports whether a mesh takes nothing but mTLS to the gRPC port of the pods of a configuration.
func (in *Input) meshed(o *Own) bool {
	return in.everyPod(o, func(pod spot) bool { return in.strict(o, pod) })
}

// strict goes by the policies of the workload, then by those of its namespace, then by those of the mesh.
func (in *Input) strict(o *Own, pod spot) bool {
	var levels [3][]string
	add := func(level int, mode string) {
		if mode != "" && mode != "UNSET" {
			levels[level] = append(levels[level], mode)
		}
	}
	for _, p := range in.objectsOf("security.istio.io", "PeerAuthentication") {
		selector, mode := p.at("spec", "selector"), p.at("spec", "mtls", "mode").text()
		switch narrow := len(selector.keys()) > 0; {
		case narrow && p.namespace == o.namespace && selects(selector, pod.at("metadata", "labels")):
			if m := p.at("spec", "portLevelMtls").key(o.grpcPort()).at("mode").text(); m != "" && m != "UNSET" {
				mode = m
			}
			add(0, mode)
		case !narrow && p.namespace == o.namespace:
			add(1, mode)
		case !narrow && p.namespace == rootNamespace:
			add(2, mode)
		}
	}
	for _, modes := range levels {
		if len(modes) > 0 {
			return !slices.ContainsFunc(modes, func(m string) bool { return m != "STRICT" })
		}
	}
	return false
}

// fenced reports whether NetworkPolicies say who may reach the gRPC port of the pods of a configuration.
func (in *Input) fenced(o *Own) bool {
	return in.everyPod(o, func(pod spot) bool {
		fenced := false
		for _, p := range in.objectsOf("networking.k8s.io", "NetworkPolicy") {
			types := p.at("spec", "policyTypes").items()
			inward := len(types) == 0 || slices.ContainsFunc(types, func(s spot) bool { return s.text() == "Ingress" })
			if p.namespace != o.namespace || !inward || !selects(p.at("spec", "podSelector"), pod.at("metadata", "labels")) {
				continue
			}
			fenced = true
			if slices.ContainsFunc(p.at("spec", "ingress").items(), func(rule spot) bool {
				return fromAnybody(rule) && toPort(rule, pod, o.grpcPort())
			}) {
				return false
			}
		}
		return fenced
	})
}

// fromAnybody reports whether a rule of a NetworkPolicy lets the whole cluster in.
func fromAnybody(rule spot) bool {
	from := rule.at("from").items()
	return len(from) == 0 || slices.ContainsFunc(from, func(peer spot) bool {
		if cidr := peer.at("ipBlock", "cidr").text(); strings.HasSuffix(cidr, "/0") {
			return true
		}
		everywhere := peer.at("namespaceSelector")
		return everywhere.is && len(everywhere.keys()) == 0 && len(peer.at("podSelector").keys()) == 0
	})
}

// toPort reports whether a rule of a NetworkPolicy is for a port, which it may call by the name that the pod gives it.
func toPort(rule, pod spot, port string) bool {
	ports := rule.at("ports").items()
	return len(ports) == 0 || slices.ContainsFunc(ports, func(s spot) bool {
		first, last := s.at("port").text(), s.at("endPort").text()
		if number(first) == 0 && first != "" {
			first = namedPort(pod, first)
		}
		if last == "" {
			return first == "" || first == port
		}
		return number(first) <= number(port) && number(port) <= number(last)
	})
}

// namedPort is the number of a port of a pod, "" if it is unknown.
func namedPort(pod spot, name string) string {
	for _, c := range pod.at("spec", "containers").items() {
		for _, p := range c.at("ports").items() {
			if p.at("name").text() == name {
				return p.at("containerPort").text()
			}
		}
	}
	return ""
}

// selects reports whether a label selector takes labels. An empty one takes all.
func selects(selector, labels spot) bool {
	return labelled(selector.at("matchLabels"), labels) && !slices.ContainsFunc(selector.at("matchExpressions").items(), func(e spot) bool {
		label := labels.key(e.at("key").text())
		listed := slices.ContainsFunc(e.at("values").items(), func(v spot) bool { return v.text() == label.text() })
		switch e.at("operator").text() {
		case "In":
			return !label.is || !listed
		case "NotIn":
			return label.is && listed
		case "Exists":
			return !label.is
		case "DoesNotExist":
			return label.is
		}
		return true
	})
}

// labelled reports whether labels have all those that are wanted.
func labelled(want, labels spot) bool {
	return !slices.ContainsFunc(want.keys(), func(k string) bool {
		return !labels.key(k).is || labels.key(k).text() != want.key(k).text()
	})
}
