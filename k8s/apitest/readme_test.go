package apitest

import (
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	istiosec "istio.io/api/security/v1beta1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

func readme(t *testing.T) string {
	t.Helper()
	return read(t, filepath.Join(repository, "k8s/README.md"))
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// example is the block of the README that contains a text and begins with a line, if one is given.
func example(t *testing.T, first, with string) string {
	t.Helper()
	for _, m := range fence.FindAllStringSubmatch(readme(t), -1) {
		if (first == "" || strings.HasPrefix(m[2], first+"\n")) && strings.Contains(m[2], with) {
			return m[2]
		}
	}
	t.Fatalf("no block begins with %q and contains %q", first, with)
	return ""
}

// The user's folder of the README builds with every overlay, and its changes take effect.
func TestReadme_FolderBuilds(t *testing.T) {
	p := openPage(t)
	p.sh(t, "git clone")
	p.write(t, "kustomization.yaml", example(t, "# kustomization.yaml", "images"), false)
	p.write(t, "kustomization.yaml", example(t, "# kustomization.yaml, with", "configMapGenerator"), true)
	p.write(t, "plans.yaml", "# mine", false)
	p.write(t, "tollkeeper.yaml", "# mine too", false)
	p.write(t, "namespace/kustomization.yaml", example(t, "# namespace/kustomization.yaml", ""), false)
	w, err := run(filesys.MakeFsOnDisk(), filepath.Join(p.folder, "namespace"))
	if err != nil {
		t.Fatal(err)
	}
	if c := all[corev1.PersistentVolumeClaim](w); len(w) != 2 || len(c) != 1 || !slices.Equal(c[0].v.Spec.AccessModes, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}) {
		t.Errorf("the namespace with another access mode: %v", w)
	}
	for _, overlay := range []string{"standalone", "istio", "envoy-gateway", "base"} {
		p.write(t, "kustomization.yaml", "resources: [tollkeeper/k8s/"+overlay+"]", true)
		w, err := run(filesys.MakeFsOnDisk(), p.folder)
		if err != nil {
			t.Fatalf("%s: %v", overlay, err)
		}
		for _, agree := range []func(world) faults{servicesAgree, networkPoliciesAgree, monitorsAgree, probesAgree, labelsAgree} {
			for _, fault := range agree(w) {
				t.Errorf("%s: %s", overlay, fault)
			}
		}
		policies := one[corev1.ConfigMap](w, "tollkeeper", "tollkeeper-policies").v.Data
		if policies["plans.yaml"] != "# mine" || policies["authz.rego"] == "" {
			t.Errorf("%s: the user's policies are not merged", overlay)
		}
		pod := one[appsv1.Deployment](w, "tollkeeper", "tollkeeper").v.Spec.Template.Spec
		if image := pod.Containers[0].Image; image != "registry.example.com/tollkeeper:1.0.0" {
			t.Errorf("%s: image %s", overlay, image)
		}
		config := pod.Volumes[slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "config" })].ConfigMap
		if m := one[corev1.ConfigMap](w, "tollkeeper", config.Name); m == nil || m.v.Data["tollkeeper.yaml"] != "# mine too" {
			t.Errorf("%s: the user's configuration is not used", overlay)
		}
	}
}

// The rules that exempt requests decode strictly.
func TestReadme_RulesAreValid(t *testing.T) {
	raw, err := yaml.YAMLToJSON([]byte(example(t, "# rules of the AuthorizationPolicy", "")))
	if err != nil {
		t.Fatal(err)
	}
	var spec istiosec.AuthorizationPolicy
	if err := protojson.Unmarshal(raw, &spec); err != nil {
		t.Fatal(err)
	}
	if len(spec.Rules) != 3 || !json.Valid(raw) {
		t.Errorf("%d rules", len(spec.Rules))
	}
}

var (
	link = regexp.MustCompile(`\]\(([^)#:]+)\)`)
	told = regexp.MustCompile(`\bk8s/[a-z/-]+(?:\.yaml)?`)
)

// The files that the README links to or names exist.
func TestReadme_LinksExist(t *testing.T) {
	text := readme(t)
	var names []string
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		names = append(names, path.Join("k8s", m[1]))
	}
	names = append(names, told.FindAllString(text, -1)...)
	if len(names) < 20 {
		t.Errorf("found %d names, want at least 20", len(names))
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(repository, name)); err != nil {
			t.Error(err)
		}
	}
}
