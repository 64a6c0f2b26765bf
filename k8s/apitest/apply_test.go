package apitest

import (
	"encoding/json"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"sigs.k8s.io/yaml"
)

// fixed are the fields of an existing object that the API server does not let anyone change; nil: all may change.
func fixed(o *object) any {
	switch v := o.value.(type) {
	case *corev1.Service:
		// An address can be neither added nor removed. The API server refuses the first and ignores the second.
		return []any{v.Spec.ClusterIP == corev1.ClusterIPNone, v.Spec.Type, v.Spec.IPFamilies}
	case *appsv1.Deployment:
		return v.Spec.Selector
	case *batchv1.Job:
		return v.Spec.Template
	case *corev1.PersistentVolumeClaim:
		spec := v.Spec
		spec.Resources = corev1.VolumeResourceRequirements{}
		return spec
	case *corev1.ConfigMap:
		return v.Immutable
	}
	return nil
}

// sameFixed reports whether an object can be applied over another one.
func sameFixed(old, new *object) bool {
	a, err := json.Marshal(fixed(old))
	b, err2 := json.Marshal(fixed(new))
	return err == nil && err2 == nil && string(a) == string(b)
}

// Each overlay can be applied over each other one.
func TestOverlays_ApplyOverEachOther(t *testing.T) {
	worlds := make(map[string]world)
	every(t, func(t *testing.T, w world) { worlds[strings.SplitN(t.Name(), "/", 2)[1]] = w })
	for _, before := range slices.Sorted(maps.Keys(worlds)) {
		for _, after := range slices.Sorted(maps.Keys(worlds)) {
			for _, old := range worlds[before] {
				for _, o := range worlds[after] {
					if o.Kind == old.Kind && o.String() == old.String() && !sameFixed(old, o) {
						t.Errorf("%s over %s: %s cannot be changed from %+v to %+v", after, before, o, fixed(old), fixed(o))
					}
				}
			}
		}
	}
}

// definitions are the files of each module that hold the schemas of its kinds.
var definitions = map[string]string{
	"github.com/cert-manager/cert-manager": "deploy/crds/*.yaml",
	"github.com/envoyproxy/gateway":        "charts/gateway-helm/charts/crds/crds/generated/*.yaml",
	"sigs.k8s.io/gateway-api":              "config/crd/standard/*.yaml",
	"istio.io/api":                         "kubernetes/*.gen.yaml",
}

// schemaless are the groups without schemas: those of Kubernetes itself, and one whose module has none.
var schemaless = []string{"networking.k8s.io", "monitoring.coreos.com"}

// schemas are the schemas of custom resources, by API version and kind.
func schemas(t *testing.T) map[string]*apiextensions.JSONSchemaProps {
	t.Helper()
	found := make(map[string]*apiextensions.JSONSchemaProps)
	for module, pattern := range definitions {
		dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
		if err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s has no %s: %v", module, pattern, err)
		}
		for _, name := range files {
			for _, doc := range strings.Split(read(t, name), "\n---") {
				var crd apiextensions.CustomResourceDefinition
				if err := yaml.Unmarshal([]byte(doc), &crd); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				for _, v := range crd.Spec.Versions {
					found[crd.Spec.Group+"/"+v.Name+" "+crd.Spec.Names.Kind] = v.Schema.OpenAPIV3Schema
				}
			}
		}
	}
	return found
}

// complete fills in the defaults of a schema, as the API server does.
func complete(value any, s *apiextensions.JSONSchemaProps) {
	switch v := value.(type) {
	case map[string]any:
		for name, field := range s.Properties {
			if _, ok := v[name]; !ok && field.Default != nil {
				var d any
				_ = json.Unmarshal(field.Default.Raw, &d) // it is JSON that came from YAML
				v[name] = d
			}
			complete(v[name], &field)
		}
		if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
			for _, x := range v {
				complete(x, s.AdditionalProperties.Schema)
			}
		}
	case []any:
		if s.Items != nil && s.Items.Schema != nil {
			for _, x := range v {
				complete(x, s.Items.Schema)
			}
		}
	}
}

// An overlay that is applied a second time changes nothing: it sets every default that the API server would fill in.
func TestOverlays_ApplyTwiceChangesNothing(t *testing.T) {
	known := schemas(t)
	every(t, func(t *testing.T, w world) {
		for _, o := range w {
			schema, ok := known[o.APIVersion+" "+o.Kind]
			if !ok {
				if group, _, _ := strings.Cut(o.APIVersion, "/"); strings.Contains(group, ".") && !slices.Contains(schemaless, group) {
					t.Errorf("%s: no schema of %s", o, o.APIVersion)
				}
				continue
			}
			var live any
			if err := json.Unmarshal(o.raw, &live); err != nil {
				t.Fatal(err)
			}
			complete(live, schema)
			current, err := json.Marshal(live)
			if err != nil {
				t.Fatal(err)
			}
			patch, err := jsonmergepatch.CreateThreeWayJSONMergePatch(o.raw, o.raw, current)
			if err != nil {
				t.Fatal(err)
			}
			if string(patch) != "{}" {
				t.Errorf("%s: a second apply patches it with %s", o, patch)
			}
		}
	})
}
