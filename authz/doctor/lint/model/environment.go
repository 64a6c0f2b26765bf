package model

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// addEnvironments applies the environment of pods to their configurations. A pod without a configuration file gets one from its
// environment alone.
func (m *Model) addEnvironments() {
	var covered []string
	for _, o := range m.Own {
		variables := make(map[string]source.Location)
		for _, p := range o.pods(m.Objects) {
			covered = append(covered, p.ID())
			maps.Copy(variables, m.Objects.variables(p, o.namespace))
		}
		if len(variables) > 0 {
			o.variables = variables
			o.load()
		}
	}
	for _, w := range m.Objects {
		t := w.PodTemplate()
		o := &Own{Location: w.Location, pod: t, namespace: w.Namespace, variables: m.Objects.variables(t, w.Namespace)}
		isPod := t.At("spec.containers").Any(func(c source.Location) bool { return c.At("image").Exists() }) // otherwise it is a patch
		if len(o.variables) == 0 || !isPod || slices.Contains(covered, t.ID()) {
			continue
		}
		o.load()
		switch {
		case o.Fault != nil && !strings.HasPrefix(o.Fault.Text, config.EnvPrefix) && !strings.HasPrefix(o.Fault.Text, "environment:"):
			// The fault may come from a file that we do not have.
		case o.Fault != nil, !reflect.DeepEqual(o.Config, config.Default()):
			m.Own = append(m.Own, o)
		}
	}
}

// pods are the templates of the pods that use a configuration: pods that mount it, or all pods of its namespace if none does.
func (o *Own) pods(all Objects) []source.Location {
	if o.IsEnvironment() {
		return []source.Location{o.pod}
	}
	var found, mount []source.Location
	for _, w := range all {
		t := w.PodTemplate()
		if o.namespace == "" || w.Namespace != o.namespace || !t.Exists() {
			continue
		}
		found = append(found, t)
		if t.At("spec.volumes").Any(func(v source.Location) bool { return v.At("configMap.name").Text() == o.configMap }) {
			mount = append(mount, t)
		}
	}
	if len(mount) > 0 {
		return mount
	}
	return found
}

// variables are Tollkeeper's variables of a pod. A container's own variables override variables from its ConfigMaps.
func (all Objects) variables(pod source.Location, namespace string) map[string]source.Location {
	out := make(map[string]source.Location)
	add := func(name string, value source.Location) {
		if strings.HasPrefix(name, config.EnvPrefix) && value.Exists() {
			out[name] = value.Called("%s, variable %s", pod.Object(), name)
		}
	}
	for _, c := range pod.At("spec.containers").Items() {
		for _, from := range c.At("envFrom").Items() {
			data := all.configMap(from.At("configMapRef"), namespace)
			for _, k := range data.Keys() {
				add(from.At("prefix").Text()+k, data.Key(k))
			}
		}
		for _, v := range c.At("env").Items() {
			ref := v.At("valueFrom.configMapKeyRef")
			add(v.At("name").Text(), all.configMap(ref, namespace).Key(ref.At("key").Text()))
			add(v.At("name").Text(), v.At("value"))
		}
	}
	return out
}

// configMap is the data of a referenced ConfigMap, if it is in the files.
func (all Objects) configMap(ref source.Location, namespace string) source.Location {
	if o := all.Find(Core, "ConfigMap", namespace, ref.At("name").Text()); ref.Exists() && o != nil {
		return o.At("data")
	}
	return ref.Nothing()
}

// everyPod reports whether a condition is true for all pods of a configuration. If the pods are not in the files, it must be true
// for a pod without labels.
func (o *Own) everyPod(all Objects, holds func(pod source.Location) bool) bool {
	pods := o.pods(all)
	if len(pods) == 0 {
		return o.namespace != "" && holds(o.Nothing())
	}
	return !slices.ContainsFunc(pods, func(p source.Location) bool { return !holds(p) })
}

// RequiresMTLS reports whether the mesh admits only mTLS to the gRPC port of the pods.
func (o *Own) RequiresMTLS(all Objects) bool {
	return o.everyPod(all, func(pod source.Location) bool { return o.requiresMTLS(all, pod) })
}

// requiresMTLS asks the policies of the workload first, then of the namespace, then of the mesh.
func (o *Own) requiresMTLS(all Objects, pod source.Location) bool {
	var levels [3][]string
	add := func(level int, mode string) {
		if mode != "" && mode != "UNSET" {
			levels[level] = append(levels[level], mode)
		}
	}
	for _, p := range all.Of(IstioSecurity, "PeerAuthentication") {
		selector, mode := p.At("spec.selector"), p.At("spec.mtls.mode").Text()
		switch narrow := len(selector.Keys()) > 0; {
		case narrow && p.Namespace == o.namespace && Selects(selector, pod.At("metadata.labels")):
			if port := p.At("spec.portLevelMtls").Key(o.GRPCPort()).At("mode").Text(); port != "" && port != "UNSET" {
				mode = port
			}
			add(0, mode)
		case !narrow && p.Namespace == o.namespace:
			add(1, mode)
		case !narrow && p.Namespace == RootNamespace:
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

// IsFenced reports whether NetworkPolicies restrict access to the gRPC port of the pods.
func (o *Own) IsFenced(all Objects) bool {
	return o.everyPod(all, func(pod source.Location) bool {
		fenced := false
		for _, p := range all.Of(networking, "NetworkPolicy").In(o.namespace) {
			types := p.At("spec.policyTypes")
			ingress := len(types.Items()) == 0 || types.Has("Ingress")
			if !ingress || !Selects(p.At("spec.podSelector"), pod.At("metadata.labels")) {
				continue
			}
			fenced = true
			if p.At("spec.ingress").Any(func(rule source.Location) bool { return fromAnywhere(rule) && toPort(rule, pod, o.GRPCPort()) }) {
				return false
			}
		}
		return fenced
	})
}

// fromAnywhere reports whether a rule of a NetworkPolicy admits the whole cluster.
func fromAnywhere(rule source.Location) bool {
	from := rule.At("from")
	return len(from.Items()) == 0 || from.Any(func(peer source.Location) bool {
		if strings.HasSuffix(peer.At("ipBlock.cidr").Text(), "/0") {
			return true
		}
		everywhere := peer.At("namespaceSelector")
		return everywhere.Exists() && len(everywhere.Keys()) == 0 && len(peer.At("podSelector").Keys()) == 0
	})
}

// toPort reports whether a rule of a NetworkPolicy is for a port. The rule may use the pod's name for the port.
func toPort(rule, pod source.Location, port string) bool {
	ports := rule.At("ports")
	return len(ports.Items()) == 0 || ports.Any(func(s source.Location) bool {
		first, last := s.At("port"), s.At("endPort")
		if first.Text() != "" && first.Number() == 0 {
			first = portNamed(pod, first.Text())
		}
		if last.Text() == "" {
			return first.Text() == "" || first.Text() == port
		}
		number, _ := strconv.Atoi(port)
		return first.Number() <= number && number <= last.Number()
	})
}

// portNamed returns the number of a named port of a pod.
func portNamed(pod source.Location, name string) source.Location {
	for _, c := range pod.At("spec.containers").Items() {
		for _, p := range c.At("ports").Items() {
			if p.At("name").Text() == name {
				return p.At("containerPort")
			}
		}
	}
	return source.Location{}
}
