package lint

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Subject is what a file is about.
type Subject string

// The subjects. Any is whatever it turns out to be.
const (
	AnySubject   Subject = ""
	EnvoySubject Subject = "envoy"
	IstioSubject Subject = "istio"
	EGSubject    Subject = "envoy-gateway"
	OwnSubject   Subject = "config"
)

// File is a file that was read.
type File struct {
	Name    string
	envoys  []*envoy
	meshes  []*mesh
	objects []*object
	owns    []*Own
	broken  []Finding
	version version // of /server_info
	kinds   []string
}

// Known reports whether there is anything in the file that rules look at.
func (f *File) Known() bool {
	return len(f.kinds)+len(f.broken) > 0 || slices.ContainsFunc(f.objects, func(o *object) bool { return o.ofInterest() })
}

// is lists what was found in the file.
func (f *File) is() []string {
	out := slices.Clone(f.kinds)
	for _, o := range f.objects {
		if o.ofInterest() {
			out = append(out, o.object)
		}
	}
	if out == nil {
		out = []string{}
	}
	return out
}

// Parse reads a file of one or more YAML documents, or of one JSON value. Where it does not say itself what it is, the
// subject does. What cannot be read is a finding of Run.
func Parse(name string, raw []byte, about Subject) *File {
	f := &File{Name: name}
	docs, err := parse(raw)
	if err != nil {
		line := 0
		if syntax := (*syntaxError)(nil); errors.As(err, &syntax) {
			line = syntax.line
		}
		f.broken = append(f.broken, Finding{File: name, Line: line, Wrong: "is neither YAML nor JSON: " + err.Error()})
		return f
	}
	for _, root := range docs {
		doc := &document{file: name, root: root}
		if len(docs) == 1 {
			doc.raw = raw
		}
		f.add(doc, about, 0)
	}
	return f
}

// add finds out what a document is.
func (f *File) add(doc *document, about Subject, depth int) {
	s := doc.spot()
	has := func(keys ...string) bool {
		return slices.ContainsFunc(keys, func(k string) bool { return s.at(k).is })
	}
	switch {
	case doc.root == nil || !doc.root.isMap && doc.root.scalar == nil && !doc.root.isList:
		// nothing but comments
	case has("kind") && has("apiVersion"):
		f.addObject(s, depth)
	case has("configs") && isDump(s):
		f.addEnvoy(readDump(s), "configuration dump of Envoy")
	case has("xds") && !has("static_resources"): // egctl x translate
		for _, k := range s.at("xds").keys() {
			f.addEnvoy(readDump(s.at("xds").key(k)), "Envoy of gateway "+k)
		}
		f.addTranslated(s, depth)
	case has("gatewayClass", "securityPolicies", "envoyPatchPolicies") && !has("listen"):
		f.addTranslated(s, depth)
	case has("static_resources", "dynamic_resources"):
		f.addEnvoy(readBootstrap(doc), "Envoy configuration")
	case has("state") && has("version") && has("command_line_options"):
		f.version = serverVersion(s.at("version").text())
		f.kinds = append(f.kinds, "Envoy "+f.version.String())
	case has("meshConfig"):
		f.addMesh(s.at("meshConfig"))
	case has("extensionProviders", "defaultProviders", "trustDomain", "pathNormalization"):
		f.addMesh(s)
	case about == OwnSubject || about == AnySubject && isOwn(s):
		f.addOwn(doc)
	case about == EnvoySubject:
		f.addEnvoy(readBootstrap(doc), "Envoy configuration")
	case about == IstioSubject:
		f.addMesh(s)
	}
}

func (f *File) addEnvoy(e *envoy, kind string) {
	f.envoys = append(f.envoys, e)
	f.kinds = append(f.kinds, kind)
}

func (f *File) addMesh(s spot) {
	f.meshes = append(f.meshes, &mesh{s.called("mesh configuration")})
	f.kinds = append(f.kinds, "Istio mesh configuration")
}

func (f *File) addOwn(doc *document) {
	f.owns = append(f.owns, readOwn(doc))
	f.kinds = append(f.kinds, "Tollkeeper configuration")
}

// addObject adds a Kubernetes object, and what stands in it as a text.
func (f *File) addObject(s spot, depth int) {
	if strings.HasSuffix(s.at("kind").text(), "List") && s.at("items").is {
		for _, item := range s.at("items").items() {
			if depth < 3 {
				f.addObject(item, depth+1)
			}
		}
		return
	}
	o := readObject(s)
	f.objects = append(f.objects, o)
	if len((&Input{objects: f.objects}).variables(o.template(), o.namespace)) > 0 {
		f.kinds = append(f.kinds, "environment of Tollkeeper in "+o.object)
	}
	if o.kind == "IstioOperator" {
		f.addMesh(o.at("spec", "meshConfig"))
	}
	if o.kind != "ConfigMap" || depth > 2 {
		return
	}
	for _, k := range o.at("data").keys() {
		text := o.at("data").key(k)
		inner := text.inside()
		if inner == nil {
			continue
		}
		if k == "mesh" {
			f.addMesh(inner.spot())
			continue
		}
		if inner.root.isMap {
			before := len(f.owns)
			f.add(inner, AnySubject, depth+3)
			for _, own := range f.owns[before:] {
				own.namespace, own.configMap = o.namespace, o.name
			}
		}
	}
}

// addTranslated adds the objects that egctl x translate prints, in lists by kind.
func (f *File) addTranslated(s spot, depth int) {
	for _, k := range s.keys() {
		list := s.at(k).items()
		if k == "gatewayClass" {
			list = []spot{s.at(k)}
		}
		for _, item := range list {
			if item.at("kind").is && item.at("metadata").is && depth < 3 {
				f.addObject(item, depth+1)
			}
		}
	}
}

func isDump(s spot) bool {
	for _, c := range s.at("configs").items() {
		if strings.Contains(c.at("@type").text(), "envoy.admin.") {
			return true
		}
	}
	return false
}

// serverVersion reads the version in /server_info: a hash, the version, and how it was built, between slashes.
func serverVersion(text string) version {
	for _, word := range strings.Split(text, "/") {
		if v, ok := parseVersion(word); ok {
			return v
		}
	}
	return version{}
}

// object is a Kubernetes object.
type object struct {
	spot
	group, kind     string
	namespace, name string
}

func readObject(s spot) *object {
	o := &object{kind: s.at("kind").text(), name: s.at("metadata", "name").text(), namespace: s.at("metadata", "namespace").text()}
	o.group, _, _ = strings.Cut(s.at("apiVersion").text(), "/")
	if !strings.Contains(s.at("apiVersion").text(), "/") {
		o.group = ""
	}
	if o.namespace == "" {
		o.namespace = "default"
	}
	o.spot = s.called("%s", strings.TrimSuffix(o.kind+" "+o.fullName(), " "))
	return o
}

// fullName is "" for what is a file of its own and only looks like an object.
func (o *object) fullName() string {
	if o.name == "" {
		return ""
	}
	return o.namespace + "/" + o.name
}

// kindsOfInterest are the kinds that rules look at, by group.
var kindsOfInterest = map[string][]string{
	"security.istio.io":         {"AuthorizationPolicy"},
	"networking.istio.io":       {"DestinationRule", "EnvoyFilter"},
	"gateway.envoyproxy.io":     {"SecurityPolicy", "ClientTrafficPolicy", "BackendTrafficPolicy", "EnvoyPatchPolicy", "Backend", "EnvoyGateway"},
	"gateway.networking.k8s.io": {},
	"":                          {},
}

func (o *object) ofInterest() bool { return slices.Contains(kindsOfInterest[o.group], o.kind) }

// objectsOf are all objects of a kind.
func (in *Input) objectsOf(group, kind string) []*object {
	var out []*object
	for _, o := range in.objects {
		if o.group == group && o.kind == kind {
			out = append(out, o)
		}
	}
	return out
}

// objectCalled finds an object, nil if it is not in the files.
func (in *Input) objectCalled(group, kind, namespace, name string) *object {
	for _, o := range in.objectsOf(group, kind) {
		if o.namespace == namespace && o.name == name {
			return o
		}
	}
	return nil
}

// meta is a label or annotation of an object.
func (o *object) meta(list, name string) string { return o.at("metadata", list).key(name).text() }

// fields checks that an object has no other fields than these: an API server drops those that it does not know without a
// word, and what was meant is not in force.
func fields(s spot, report func(Finding), known string) {
	list := strings.Fields(known)
	for _, k := range s.keys() {
		if slices.Contains(list, k) {
			continue
		}
		hint := ""
		if near := nearest(k, list); near != "" {
			hint = fmt.Sprintf(": did you mean %q?", near)
		}
		f := s.at(k).says("there is no field %q here%s", k, hint)
		f.Remedy = "Correct the name: a cluster refuses the object, or drops the field without a word."
		report(f)
	}
}

// nearest is a name that is the same but for case and underscores, or differs in one or two letters.
func nearest(name string, list []string) string {
	for _, k := range list {
		if flatten(k) == flatten(name) {
			return k
		}
	}
	for _, k := range list {
		if len(k) > 4 && distance(flatten(k), flatten(name)) <= 2 {
			return k
		}
	}
	return ""
}
