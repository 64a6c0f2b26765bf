package apitest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	certv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// cluster stands in for kubectl and the cluster behind it, for the commands of the README. It keeps objects in a folder
// from one command to the next, and refuses what an API server refuses: a missing namespace, and a change of an immutable
// field. It also refuses to apply objects that it did not apply before, where kubectl only warns.
type cluster struct {
	dir     string
	loaded  []byte
	objects map[string]*stored
}

// stored is an object in the cluster.
type stored struct {
	Raw     json.RawMessage
	Applied bool // by kubectl apply, which prunes only such objects
	*object `json:"-"`
}

// standIn carries out one command line of kubectl, and returns its exit code.
func standIn(dir string, args []string) int {
	c := &cluster{dir: dir, objects: make(map[string]*stored)}
	err := c.load()
	if err == nil {
		err = c.do(args)
	}
	if err == nil {
		err = c.save()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stand-in:", err)
		return 1
	}
	return 0
}

func (c *cluster) load() error {
	raw, err := os.ReadFile(filepath.Join(c.dir, "state.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &c.objects); err != nil {
		return err
	}
	c.loaded = raw
	for _, s := range c.objects {
		if s.object, err = parse(s.Raw); err != nil {
			return err
		}
	}
	return nil
}

// save first makes a Secret for each Certificate, as cert-manager would.
func (c *cluster) save() error {
	for _, s := range slices.Collect(maps.Values(c.objects)) {
		if cert, ok := s.value.(*certv1.Certificate); ok {
			name := "Secret " + s.Metadata.Namespace + "/" + cert.Spec.SecretName
			if c.objects[name] != nil {
				continue
			}
			a, err := newAuthority(nil)
			if err != nil {
				return err
			}
			data, err := a.secret() // for leaves too: their content does not matter here
			if err != nil {
				return err
			}
			c.objects[name] = &stored{Raw: secret(s.Metadata.Namespace, cert.Spec.SecretName, data)}
		}
	}
	raw, err := json.Marshal(c.objects)
	if err != nil || string(raw) == string(c.loaded) {
		return err // unchanged: another command of the same pipeline may have written meanwhile
	}
	return os.WriteFile(filepath.Join(c.dir, "state.json"), raw, 0o600)
}

func secret(namespace, name string, data map[string][]byte) []byte {
	raw, err := json.Marshal(corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Data: data})
	if err != nil {
		panic(err)
	}
	return raw
}

func (c *cluster) do(args []string) error {
	cmd := commandLine(args)
	switch verb := strings.Join(cmd.words[:min(2, len(cmd.words))], " "); {
	case cmd.words[0] == "apply":
		return c.apply(cmd)
	case verb == "delete" && cmd.has("-k"):
		return c.deleteFolder(cmd)
	case cmd.words[0] == "delete":
		return c.deleteNamed(cmd)
	case cmd.words[0] == "kustomize":
		return kustomize(cmd.words[1], os.Stdout)
	case verb == "create secret":
		return c.createSecret(cmd)
	case verb == "patch secret":
		return c.patchSecret(cmd)
	case cmd.words[0] == "logs":
		fmt.Println("The schema is created: version 1.\ninstallation  01234567-89ab-cdef-0123-456789abcdef")
		return c.refer(cmd)
	case verb == "wait pod":
		return nil
	case verb == "get secret":
		return c.getSecret(cmd)
	case cmd.words[0] == "get":
		return c.list(cmd)
	case cmd.words[0] == "api-resources":
		fmt.Println("everything")
		return nil
	case cmd.words[0] == "label":
		return c.label(cmd)
	case verb == "rollout status", slices.Contains([]string{"exec", "port-forward", "scale", "wait"}, cmd.words[0]):
		return c.refer(cmd)
	}
	return fmt.Errorf("the stand-in does not know kubectl %q", args)
}

func kustomize(dir string, out io.Writer) error {
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return err
	}
	text, err := m.AsYaml()
	if err == nil {
		_, err = out.Write(text)
	}
	return err
}

// objectsOf are the objects of a folder or a file.
func objectsOf(cmd command) ([]*object, error) {
	var text strings.Builder
	switch from := cmd.flag("-f"); {
	case cmd.has("-k"):
		if err := kustomize(cmd.flag("-k"), &text); err != nil {
			return nil, err
		}
	case from == "-":
		if _, err := io.Copy(&text, os.Stdin); err != nil {
			return nil, err
		}
	default:
		raw, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		text.Write(raw)
	}
	var found []*object
	for _, doc := range strings.Split(text.String(), "\n---\n") {
		raw, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			return nil, err
		}
		o, err := parse(raw)
		if err != nil {
			return nil, err
		}
		found = append(found, o)
	}
	return found, nil
}

// theirs are the namespaces that a cluster has beforehand.
var theirs = []string{"", "default", "istio-system", "envoy-gateway-system", "monitoring"}

func (c *cluster) apply(cmd command) error {
	objects, err := objectsOf(cmd)
	if err != nil {
		return err
	}
	var faults []error
	given, visited := make(map[string]bool), make(map[string]bool)
	for _, o := range objects {
		given[o.String()], visited[o.Metadata.Namespace] = true, true
		old := c.objects[o.String()]
		switch {
		case !slices.Contains(theirs, o.Metadata.Namespace) && c.objects["Namespace /"+o.Metadata.Namespace] == nil:
			faults = append(faults, fmt.Errorf("%s: the namespace does not exist", o))
		case old != nil && !old.Applied && !cmd.has("--server-side"):
			faults = append(faults, fmt.Errorf("%s: missing the annotation last-applied-configuration", o))
		case old != nil && !sameFixed(old.object, o):
			faults = append(faults, fmt.Errorf("%s: changes an immutable field", o))
		default:
			c.objects[o.String()] = &stored{Raw: o.raw, Applied: !cmd.has("--server-side"), object: o}
		}
	}
	if cmd.has("--prune") {
		c.prune(cmd, given, visited)
	}
	return errors.Join(faults...)
}

func (c *cluster) prune(cmd command, given, visited map[string]bool) {
	for name, s := range c.objects {
		kind := s.APIVersion + "/" + s.Kind
		if !strings.Contains(s.APIVersion, "/") {
			kind = "core/" + kind
		}
		if s.Applied && !given[name] && visited[s.Metadata.Namespace] && slices.Contains(cmd.flags["--prune-allowlist"], kind) && selectedBy(cmd, s) {
			delete(c.objects, name)
		}
	}
}

func selectedBy(cmd command, s *stored) bool {
	sel, err := labels.Parse(cmd.flag("-l"))
	return err == nil && sel.Matches(labels.Set(s.Metadata.Labels))
}

func (c *cluster) deleteFolder(cmd command) error {
	objects, err := objectsOf(cmd)
	if err != nil {
		return err
	}
	for _, o := range objects {
		delete(c.objects, o.String())
		if o.Kind != "Namespace" {
			continue
		}
		for name, s := range c.objects {
			if s.Metadata.Namespace == o.Metadata.Name {
				delete(c.objects, name)
			}
		}
	}
	return nil
}

// kindOf maps names on command lines to kinds.
var kindOf = map[string]string{
	"secret": "Secret", "service": "Service", "svc": "Service", "hpa": "HorizontalPodAutoscaler", "deploy": "Deployment", "job": "Job",
	"namespace": "Namespace", "persistentvolumeclaim": "PersistentVolumeClaim",
}

func (c *cluster) key(cmd command, kind, name string) string {
	if kindOf[kind] == "Namespace" {
		return "Namespace /" + name
	}
	return kindOf[kind] + " " + cmd.flag("-n") + "/" + name
}

func (c *cluster) deleteNamed(cmd command) error {
	for _, name := range cmd.words[2:] {
		key := c.key(cmd, cmd.words[1], name)
		if c.objects[key] == nil && !cmd.has("--ignore-not-found") {
			return fmt.Errorf("%s does not exist", key)
		}
		delete(c.objects, key)
	}
	return nil
}

func (c *cluster) createSecret(cmd command) error {
	name := cmd.words[3]
	data := make(map[string][]byte)
	for _, l := range cmd.flags["--from-literal"] {
		k, v, _ := strings.Cut(l, "=")
		data[k] = []byte(v)
	}
	files := map[string]string{}
	for _, f := range cmd.flags["--from-file"] {
		if k, at, named := strings.Cut(f, "="); named {
			files[k] = at
		} else {
			files[filepath.Base(f)] = f
		}
	}
	if cmd.words[2] == "tls" {
		files["tls.crt"], files["tls.key"] = cmd.flag("--cert"), cmd.flag("--key")
	}
	for k, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		data[k] = raw
	}
	raw := secret(cmd.flag("-n"), name, data)
	if cmd.has("--dry-run") {
		_, err := os.Stdout.Write(raw)
		return err
	}
	key := c.key(cmd, "secret", name)
	if c.objects[key] != nil || c.objects["Namespace /"+cmd.flag("-n")] == nil {
		return fmt.Errorf("%s exists already, or its namespace does not", key)
	}
	o, err := parse(raw)
	c.objects[key] = &stored{Raw: raw, object: o}
	return err
}

func (c *cluster) getSecret(cmd command) error {
	s := c.objects[c.key(cmd, "secret", cmd.words[2])]
	if s == nil {
		return errors.New("no such secret")
	}
	if path := cmd.flag("-o"); path != "" {
		key := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(path, "jsonpath={.data."), "}"), `\.`, ".")
		fmt.Print(base64.StdEncoding.EncodeToString(s.value.(*corev1.Secret).Data[key]))
	}
	return nil
}

func (c *cluster) list(cmd command) error {
	if !cmd.has("-A") {
		return errors.New("want -A")
	}
	for name, s := range c.objects {
		if selectedBy(cmd, s) {
			fmt.Println(name)
		}
	}
	return nil
}

func (c *cluster) label(cmd command) error {
	s := c.objects[c.key(cmd, cmd.words[1], cmd.words[2])]
	if s == nil {
		return fmt.Errorf("no %s", cmd.words[2])
	}
	k, v, _ := strings.Cut(cmd.words[3], "=")
	var o map[string]any
	if err := json.Unmarshal(s.Raw, &o); err != nil {
		return err
	}
	meta := o["metadata"].(map[string]any)
	if meta["labels"] == nil {
		meta["labels"] = map[string]any{}
	}
	meta["labels"].(map[string]any)[k] = v
	raw, err := json.Marshal(o)
	s.Raw = raw
	return err
}

// patchSecret wants the Secret to exist, and the patch to be fields of one.
func (c *cluster) patchSecret(cmd command) error {
	if c.objects[c.key(cmd, "secret", cmd.words[2])] == nil {
		return errors.New("no such secret")
	}
	return strictly([]byte(cmd.flag("-p")), new(corev1.Secret))
}

// refer wants the object of a command to exist, and everything that the pods of a Deployment or a Job mount.
func (c *cluster) refer(cmd command) error {
	i := slices.IndexFunc(cmd.words, func(w string) bool { return strings.Contains(w, "/") })
	kind, name, _ := strings.Cut(cmd.words[i], "/")
	s := c.objects[c.key(cmd, kind, name)]
	if s == nil {
		return fmt.Errorf("no %s", cmd.words[i])
	}
	found := templates(world{s.object})
	if len(found) == 0 {
		return nil
	}
	for _, v := range found[0].v.Spec.Volumes {
		wanted := ""
		switch {
		case v.Secret != nil:
			wanted = c.key(cmd, "secret", v.Secret.SecretName)
		case v.ConfigMap != nil:
			wanted = "ConfigMap " + cmd.flag("-n") + "/" + v.ConfigMap.Name
		case v.PersistentVolumeClaim != nil:
			wanted = c.key(cmd, "persistentvolumeclaim", v.PersistentVolumeClaim.ClaimName)
		}
		if wanted != "" && c.objects[wanted] == nil {
			return fmt.Errorf("%s waits for %s", s, wanted)
		}
	}
	return nil
}
