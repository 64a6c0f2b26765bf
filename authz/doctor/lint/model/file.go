package model

import (
	"errors"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// Subject is the kind of configuration that a file is expected to have.
type Subject string

// The subjects. With AnySubject the kind is found out from the content.
const (
	AnySubject   Subject = ""
	EnvoySubject Subject = "envoy"
	IstioSubject Subject = "istio"
	EGSubject    Subject = "envoy-gateway"
	OwnSubject   Subject = "config"
)

// File is a file and the configurations in it.
type File struct {
	Name    string
	kinds   []string // names, for people, of the kinds of configuration, except objects
	envoys  []envoySource
	meshes  []source.Location
	objects Objects
	own     []ownSource
	tables  []tableSource
	faults  []Fault
	version Version // of /server_info
}

// Known reports whether the file has anything that rules look at.
func (f *File) Known() bool {
	return len(f.kinds)+len(f.faults) > 0 || slices.ContainsFunc(f.objects, (*Object).isJudged)
}

// Is lists the kinds of configuration in the file.
func (f *File) Is() []string {
	out := append([]string{}, f.kinds...)
	for _, o := range f.objects {
		if o.isJudged() {
			out = append(out, o.Object())
		}
	}
	return out
}

const (
	envoyKind = "Envoy configuration"
	meshKind  = "Istio mesh configuration"
	ownKind   = "Tollkeeper configuration"
	tableKind = "routes of Tollkeeper"

	maxNesting = 3 // of lists of objects, and of documents in ConfigMaps
)

// Parse reads a file of one or more YAML documents, or of one JSON value. The subject decides if the content does not show its
// kind. Unreadable parts become faults of the model.
func Parse(name string, raw []byte, about Subject) *File {
	f := &File{Name: name}
	docs, err := source.Parse(name, raw)
	if err != nil {
		at := (&source.Document{File: name}).Root()
		if syntax := (*source.SyntaxError)(nil); errors.As(err, &syntax) {
			at = at.OnLine(syntax.Line)
		}
		f.faults = append(f.faults, fault(at, "is not YAML or JSON: %v", err))
	}
	for _, doc := range docs {
		f.add(doc, about, 0)
	}
	return f
}

// add finds out the kind of a document and adds it.
func (f *File) add(doc *source.Document, about Subject, depth int) {
	at := doc.Root()
	has := func(keys ...string) bool {
		return slices.ContainsFunc(keys, func(k string) bool { return at.At(k).Exists() })
	}
	switch {
	case doc.Empty():
	case has("kind") && has("apiVersion"):
		f.addObject(at, depth)
	case isTable(at):
		f.addTable(at, dataSet(f.Name))
	case at.At("configs").Any(func(c source.Location) bool { return strings.Contains(c.At("@type").Text(), "envoy.admin.") }):
		f.addEnvoy(at, true, "configuration dump of Envoy")
	case has("xds") && !has("static_resources"): // from egctl x translate
		for _, k := range at.At("xds").Keys() {
			f.addEnvoy(at.At("xds").Key(k), true, "Envoy of gateway "+k)
		}
		f.addTranslated(at, depth)
	case has("gatewayClass", "securityPolicies", "envoyPatchPolicies") && !has("listen"):
		f.addTranslated(at, depth)
	case has("static_resources", "dynamic_resources"):
		f.addEnvoy(at, false, envoyKind)
	case has("state") && has("version") && has("command_line_options"):
		f.version = serverVersion(at.At("version").Text())
		f.kinds = append(f.kinds, "Envoy "+f.version.String())
	case has("meshConfig"):
		f.addMesh(at.At("meshConfig"))
	case has("extensionProviders", "defaultProviders", "trustDomain", "pathNormalization"):
		f.addMesh(at)
	case about == OwnSubject || about == AnySubject && isOwn(at):
		f.own = append(f.own, ownSource{doc: doc})
		f.kinds = append(f.kinds, ownKind)
	case about == EnvoySubject:
		f.addEnvoy(at, false, envoyKind)
	case about == IstioSubject:
		f.addMesh(at)
	}
}

func (f *File) addEnvoy(at source.Location, dump bool, kind string) {
	f.envoys = append(f.envoys, envoySource{at, dump})
	f.kinds = append(f.kinds, kind)
}

func (f *File) addMesh(at source.Location) {
	f.meshes = append(f.meshes, at.Called("mesh configuration"))
	f.kinds = append(f.kinds, meshKind)
}

// addObject adds a Kubernetes object, and the documents in it.
func (f *File) addObject(at source.Location, depth int) {
	if strings.HasSuffix(at.At("kind").Text(), "List") && at.At("items").Exists() {
		for _, item := range at.At("items").Items() {
			if depth < maxNesting {
				f.addObject(item, depth+1)
			}
		}
		return
	}
	o := readObject(at)
	f.objects = append(f.objects, o)
	if len(f.objects.variables(o.PodTemplate(), o.Namespace)) > 0 {
		f.kinds = append(f.kinds, "environment of Tollkeeper in "+o.Object())
	}
	switch {
	case o.Kind == "IstioOperator":
		f.addMesh(o.At("spec.meshConfig"))
	case o.Kind == "ConfigMap" && depth < maxNesting:
		f.addConfigMap(o)
	}
}

// addConfigMap adds the documents in a ConfigMap.
func (f *File) addConfigMap(o *Object) {
	data := o.At("data")
	for _, k := range data.Keys() {
		inner := source.Embedded(data.Key(k))
		switch {
		case inner == nil:
		case k == "mesh":
			f.addMesh(inner.Root())
		case inner.Root().IsMap():
			before, tables := len(f.own), len(f.tables)
			f.add(inner, AnySubject, maxNesting)
			for i := range f.own[before:] {
				f.own[before+i].namespace, f.own[before+i].configMap = o.Namespace, o.Name
			}
			for i := range f.tables[tables:] {
				f.tables[tables+i].set = o.ID()
			}
		}
	}
}

// addTranslated adds the objects that egctl x translate prints, in lists by kind.
func (f *File) addTranslated(at source.Location, depth int) {
	for _, k := range at.Keys() {
		list := at.Child(k).Items()
		if k == "gatewayClass" {
			list = []source.Location{at.Child(k)}
		}
		for _, item := range list {
			if item.At("kind").Exists() && item.At("metadata").Exists() && depth < maxNesting {
				f.addObject(item, depth+1)
			}
		}
	}
}

// serverVersion reads the version in /server_info: a hash, the version and the kind of build, with slashes between them.
func serverVersion(text string) Version {
	for word := range strings.SplitSeq(text, "/") {
		if v, ok := parseVersion(word); ok {
			return v
		}
	}
	return Version{}
}
