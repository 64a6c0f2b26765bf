package apitest

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// repository is the root of the repository.
const repository = "../.."

// overlays are the folders that a user may apply.
var overlays = []string{
	"base", "standalone", "istio", "istio/sidecar", "istio/waypoint", "istio-gateway-api", "envoy-gateway", "monitoring",
	"cert-manager", "standalone/cert-manager", "namespace", "istio/namespace", "migrate", "copy",
}

// combinations are overlays that users may write, with components that no shipped folder uses.
var combinations = map[string]string{
	"issuers":              "resources: [../base]\ncomponents: [../components/issuers]\n",
	"everything in Istio":  "resources: [../istio, ../istio/sidecar, ../istio/waypoint]\ncomponents: [../components/monitoring, ../components/issuers]\n",
	"standalone, metrics":  "resources: [../standalone]\ncomponents: [../components/monitoring]\n",
	"TLS by a Secret only": "resources: [../base]\ncomponents: [../components/tls]\n",

	"postgres":                    "resources: [../base]\ncomponents: [../components/postgres]\n",
	"postgres, standalone":        "resources: [../standalone, ../standalone/cert-manager]\ncomponents: [../components/postgres]\n",
	"postgres, istio":             "resources: [../istio, ../istio/sidecar, ../istio/waypoint]\ncomponents: [../components/postgres]\n",
	"postgres, istio-gateway-api": "resources: [../istio-gateway-api]\ncomponents: [../components/postgres]\n",
	"postgres, envoy-gateway":     "resources: [../envoy-gateway, ../cert-manager]\ncomponents: [../components/postgres, ../components/monitoring]\n",
	"postgres, monitoring":        "resources: [../monitoring]\ncomponents: [../components/postgres, ../components/issuers]\n",
}

// fromDisk copies the files that kustomize may read into memory, where a test can change them.
func fromDisk() filesys.FileSystem {
	mem := filesys.MakeFsInMemory()
	for _, dir := range []string{"k8s", "policies"} {
		err := filepath.WalkDir(filepath.Join(repository, dir), func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if ext := filepath.Ext(name); ext != ".yaml" && ext != ".rego" && d.Name() != "Kustomization" {
				return nil
			}
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(repository, name)
			if err != nil {
				return err
			}
			return mem.WriteFile(path.Join("/", filepath.ToSlash(rel)), b)
		})
		if err != nil {
			panic(err) // the repository is incomplete
		}
	}
	return mem
}

// build returns the decoded output of `kubectl kustomize k8s/OVERLAY`.
func build(on filesys.FileSystem, overlay string) (world, error) {
	return run(on, path.Join("/k8s", overlay))
}

// buildWith does the same for a user's own overlay, in a folder beside ours.
func buildWith(on filesys.FileSystem, kustomization string) (world, error) {
	const dir = "/k8s/mine"
	if err := on.WriteFile(path.Join(dir, "kustomization.yaml"), []byte(kustomization)); err != nil {
		return nil, err
	}
	return run(on, dir)
}

func run(on filesys.FileSystem, dir string) (world, error) {
	out, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(on, dir)
	if err != nil {
		return nil, err
	}
	var w world
	for _, r := range out.Resources() {
		raw, err := r.MarshalJSON()
		if err != nil {
			return nil, err
		}
		o, err := parse(raw)
		if err != nil {
			return nil, err
		}
		w = append(w, o)
	}
	return w, nil
}

func parse(raw []byte) (*object, error) {
	o := &object{raw: raw}
	if err := json.Unmarshal(raw, o); err != nil {
		return nil, err
	}
	var err error
	if o.value, err = decode(o.APIVersion, o.Kind, raw); err != nil {
		return nil, fmt.Errorf("%s: %w", o, err)
	}
	return o, nil
}

// object is one object of the API, with its value of the Go type.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string            `json:"name"`
		Namespace string            `json:"namespace"`
		Labels    map[string]string `json:"labels"`
	} `json:"metadata"`
	raw   []byte
	value any
}

func (o *object) String() string {
	return strings.TrimPrefix(o.Kind+" "+o.Metadata.Namespace+"/"+o.Metadata.Name, "/")
}

// world is all objects of an overlay.
type world []*object

// all returns the objects of a type.
func all[T any](w world) []*named[T] {
	var found []*named[T]
	for _, o := range w {
		if v, ok := o.value.(*T); ok {
			found = append(found, &named[T]{o, v})
		}
	}
	return found
}

// named is an object whose type is known.
type named[T any] struct {
	*object
	v *T
}

// one returns the object of a type with a name, nil if none has it.
func one[T any](w world, namespace, name string) *named[T] {
	for _, o := range all[T](w) {
		if o.Metadata.Namespace == namespace && o.Metadata.Name == name {
			return o
		}
	}
	return nil
}

// every calls f for every overlay and combination.
func every(t *testing.T, f func(t *testing.T, w world)) {
	on := fromDisk()
	for _, name := range overlays {
		t.Run(name, func(t *testing.T) {
			w, err := build(on, name)
			if err != nil {
				t.Fatal(err)
			}
			f(t, w)
		})
	}
	for name, text := range combinations {
		t.Run(name, func(t *testing.T) {
			w, err := buildWith(on, text)
			if err != nil {
				t.Fatal(err)
			}
			f(t, w)
		})
	}
}
