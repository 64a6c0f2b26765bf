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

// block is the example of the README that begins with that line.
func block(t *testing.T, first string) string {
	t.Helper()
	_, rest, ok := strings.Cut(readme(t), "```yaml\n"+first+"\n")
	text, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatalf("no example that begins with %q", first)
	}
	return text
}

// The folder of a user's own that the README shows builds, with every overlay in it, and does what is said.
func TestReadmeFolder(t *testing.T) {
	text := block(t, "# kustomization.yaml")
	for _, overlay := range []string{"standalone", "istio", "envoy-gateway", "base"} {
		on := filesys.MakeFsInMemory()
		repo := fromDisk()
		err := repo.Walk("/", func(name string, info os.FileInfo, err error) error {
			if err != nil || info.IsDir() {
				return err
			}
			b, err := repo.ReadFile(name)
			if err != nil {
				return err
			}
			return on.WriteFile(path.Join("/mine/tollkeeper", name), b)
		})
		if err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{
			"kustomization.yaml": strings.Replace(text, "tollkeeper/k8s/standalone", "tollkeeper/k8s/"+overlay, 1),
			"plans.yaml":         "# mine", "custom.rego": "package tollkeeper.custom", "tollkeeper.yaml": "# mine too",
		} {
			if err := on.WriteFile(path.Join("/mine", name), []byte(content)); err != nil {
				t.Fatal(err)
			}
		}
		w, err := run(on, "/mine")
		if err != nil {
			t.Fatalf("%s: %v", overlay, err)
		}
		for _, agree := range []func(world) faults{servicesAgree, networkPoliciesAgree, monitorsAgree, probesAgree} {
			for _, fault := range agree(w) {
				t.Errorf("%s: %s", overlay, fault)
			}
		}
		policies := one[corev1.ConfigMap](w, "tollkeeper", "tollkeeper-policies").v.Data
		if policies["plans.yaml"] != "# mine" || policies["custom.rego"] == "" || policies["authz.rego"] == "" {
			t.Errorf("%s: policies are not merged", overlay)
		}
		pod := one[appsv1.Deployment](w, "tollkeeper", "tollkeeper").v.Spec.Template.Spec
		if image := pod.Containers[0].Image; image != "registry.example.com/tollkeeper:1.0.0" {
			t.Errorf("%s: image %s", overlay, image)
		}
		config := pod.Volumes[slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "config" })].ConfigMap
		if m := one[corev1.ConfigMap](w, "tollkeeper", config.Name); m == nil || m.v.Data["tollkeeper.yaml"] != "# mine too" {
			t.Errorf("%s: the configuration is not the user's", overlay)
		}
	}
}

// The rules that exempt requests are rules.
func TestReadmeRules(t *testing.T) {
	raw, err := yaml.YAMLToJSON([]byte(block(t, "# rules of the AuthorizationPolicy")))
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

// What the README points at is there.
func TestReadmePointsAtWhatIsThere(t *testing.T) {
	text := readme(t)
	var names []string
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		names = append(names, path.Join("k8s", m[1]))
	}
	names = append(names, told.FindAllString(text, -1)...)
	if len(names) < 20 {
		t.Errorf("%d names found", len(names))
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(repository, name)); err != nil {
			t.Error(err)
		}
	}
}
