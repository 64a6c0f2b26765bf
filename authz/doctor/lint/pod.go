package lint

import "slices"

// A configuration in a ConfigMap is completed by what stands beside it: the environment of the pods, and who may reach
// them.

// workloads are the kinds that hold a pod template.
var workloads = []string{"Deployment", "StatefulSet", "DaemonSet"}

// podVariable is a variable in the environment of the pods of a configuration, "" if they have none of that name.
func (in *Input) podVariable(o *Own, name string) string {
	for _, w := range in.objects {
		if o.namespace == "" || w.namespace != o.namespace || !slices.Contains(workloads, w.kind) {
			continue
		}
		for _, c := range w.at("spec", "template", "spec", "containers").items() {
			for _, v := range c.at("env").items() {
				if v.at("name").text() == name && v.at("value").is {
					return v.at("value").text()
				}
			}
		}
	}
	return ""
}

// meshed reports whether a mesh takes nothing but mTLS to the pods of a configuration.
func (in *Input) meshed(o *Own) bool {
	return o.namespace != "" && slices.ContainsFunc(in.objectsOf("security.istio.io", "PeerAuthentication"), func(p *object) bool {
		return (p.namespace == o.namespace || p.namespace == rootNamespace) && p.at("spec", "mtls", "mode").text() == "STRICT"
	})
}

// fenced reports whether a NetworkPolicy says who may reach the pods of a configuration.
func (in *Input) fenced(o *Own) bool {
	return o.namespace != "" && slices.ContainsFunc(in.objectsOf("networking.k8s.io", "NetworkPolicy"), func(p *object) bool {
		return p.namespace == o.namespace && p.at("spec", "ingress").is
	})
}
