package apitest

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// page is the README, worked through from top to bottom: a shell runs its commands in the folder to which the page has
// changed, with a stand-in for the cluster.
type page struct {
	root, folder, state string
	env                 []string
}

// fence matches a block of commands or of a file. titled matches the first line of a file: its name, and "with" if the
// block replaces fields of it.
var (
	fence  = regexp.MustCompile("(?s)```(sh|bash|yaml)\n(.*?)```")
	titled = regexp.MustCompile(`^# ([a-z/]+\.yaml)(, with)?\n`)
)

func openPage(t *testing.T) *page {
	t.Helper()
	p := &page{root: t.TempDir(), state: t.TempDir()}
	p.folder = p.root
	if err := os.WriteFile(filepath.Join(p.state, "state.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	bin, tmp := t.TempDir(), filepath.Join(p.state, "tmp")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"kubectl":    fmt.Sprintf("APITEST_CLUSTER=%q exec %q \"$@\"", p.state, self),
		"tollkeeper": fmt.Sprintf("exec %q \"$@\"", tollkeeper(t)),
		"git":        fmt.Sprintf("mkdir tollkeeper tollkeeper/k8s && cp -r %[1]q/policies tollkeeper && cp -r %[1]q/k8s/[b-z]* tollkeeper/k8s", here), // clone
		"helm":       `for f in "$@"; do case $f in *.yaml) test -f "$f";; esac done`,
		"curl":       "true",
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\nset -e\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	p.env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "TMPDIR="+tmp)
	return p
}

// sh runs commands, and stays in the folder to which they change.
func (p *page) sh(t *testing.T, commands string) string {
	t.Helper()
	at := filepath.Join(p.state, "pwd")
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", commands+"\npwd > "+at+"\nwait\n")
	cmd.Dir, cmd.Env = p.folder, p.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\nin %s:\n%s\nprinted:\n%s", err, cmd.Dir, commands, out)
	}
	p.folder = strings.TrimSpace(read(t, at))
	return string(out)
}

// write writes a file, or replaces fields of it.
func (p *page) write(t *testing.T, name, text string, fields bool) {
	t.Helper()
	file := filepath.Join(p.folder, name)
	if fields {
		var have, with map[string]any
		if err := yaml.Unmarshal([]byte(read(t, file)), &have); err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal([]byte(text), &with); err != nil {
			t.Fatal(err)
		}
		maps.Copy(have, with)
		raw, err := yaml.Marshal(have)
		if err != nil {
			t.Fatal(err)
		}
		text = string(raw)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *page) cluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{dir: p.state, objects: make(map[string]*stored)}
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	return c
}

// command is a parsed command line of kubectl.
type command struct {
	words []string
	flags map[string][]string
}

// valued are the flags whose value is the next word. Flags with two dashes have it after "=".
var valued = []string{"-n", "-k", "-f", "-l", "-o", "-p"}

func commandLine(args []string) command {
	cmd := command{flags: make(map[string][]string)}
	for i := 0; i < len(args); i++ {
		name, value, _ := strings.Cut(args[i], "=")
		switch {
		case args[i] == "--":
			cmd.words = append(cmd.words, args[i:]...)
			return cmd
		case slices.Contains(valued, args[i]) && i+1 < len(args):
			cmd.flags[args[i]] = append(cmd.flags[args[i]], args[i+1])
			i++
		case strings.HasPrefix(name, "-"):
			cmd.flags[name] = append(cmd.flags[name], value)
		default:
			cmd.words = append(cmd.words, args[i])
		}
	}
	return cmd
}

func (c command) flag(name string) string { return strings.Join(c.flags[name], ",") }

func (c command) has(name string) bool { return c.flags[name] != nil }

// The page works from top to bottom: every file that it names exists, the cluster accepts every object, no keys and quotas
// are deleted before the last command, and nothing is left after it.
func TestReadme_RunsFromTopToBottom(t *testing.T) {
	p := openPage(t)
	checks := map[string]func(t *testing.T){
		"kubectl delete -k .\n":        func(t *testing.T) { valuablesStay(t, p.cluster(t)) },
		"kubectl apply -k . --prune":   func(t *testing.T) { valuablesStay(t, p.cluster(t)); prunedIs(t, p) },
		"mktemp":                       func(t *testing.T) { certified(t, p) },
		"git clone":                    func(t *testing.T) { haveURLs(t, p) },
		"sed 's/address":               func(t *testing.T) { asksPods(t, p) },
		"k8s/namespace\n":              nil,
		"kubectl kustomize . | tollke": nil,
	}
	ran := 0
	for _, m := range fence.FindAllStringSubmatch(readme(t), -1) {
		kind, text := m[1], m[2]
		title := titled.FindStringSubmatch(text)
		switch {
		case kind != "yaml":
			p.sh(t, text)
			ran++
		case title != nil:
			p.write(t, title[1], text, title[2] != "")
		}
		for part, check := range checks {
			if strings.Contains(text, part) && kind != "yaml" {
				if check != nil {
					check(t)
				}
				delete(checks, part)
			}
		}
	}
	if ran < 15 || len(checks) > 0 {
		t.Errorf("%d blocks ran, and none contains %q", ran, slices.Collect(maps.Keys(checks)))
	}
	for name, s := range p.cluster(t).objects {
		if s.Metadata.Namespace == "tollkeeper" || s.Kind == "Namespace" {
			t.Errorf("%s is left", name)
		}
	}
	_ = filepath.WalkDir(p.root, func(name string, _ fs.DirEntry, _ error) error {
		if strings.HasSuffix(name, ".key") {
			t.Errorf("a private key is left in %s", name)
		}
		return nil
	})
}

// haveURLs writes the files with the URLs of a database, which the page leaves to the user.
func haveURLs(t *testing.T, p *page) {
	t.Helper()
	for _, name := range []string{"url", "owner-url"} {
		p.write(t, name, "postgres://tollkeeper:secret@db.example.com/tollkeeper\n", false)
	}
}

// asksPods wants the changed configuration of Envoy to be the one with which the rollout is tested.
func asksPods(t *testing.T, p *page) {
	t.Helper()
	shipped := read(t, filepath.Join(repository, "k8s/standalone/envoy.yaml"))
	if got := read(t, filepath.Join(p.folder, "envoy.yaml")); got != forSeveral.Replace(shipped) || got == shipped {
		t.Error("the command makes another configuration than the one that was tested")
	}
}

// valuablesStay wants the objects to exist that cannot be made again.
func valuablesStay(t *testing.T, c *cluster) {
	t.Helper()
	for _, name := range []string{"Namespace /tollkeeper", "PersistentVolumeClaim tollkeeper/tollkeeper-data", "Secret tollkeeper/tollkeeper"} {
		if c.objects[name] == nil {
			t.Errorf("%s is gone", name)
		}
	}
}

// prunedIs wants no object of a kind of Kubernetes itself in our namespace that is not in the folder.
func prunedIs(t *testing.T, p *page) {
	t.Helper()
	w, err := objectsOf(commandLine([]string{"-k", p.folder}))
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range p.cluster(t).objects {
		own := slices.ContainsFunc(w, func(o *object) bool { return o.String() == name })
		if !own && s.Metadata.Namespace == "tollkeeper" && s.Metadata.Labels[partOf] == ours && kinds[s.APIVersion+" "+s.Kind] != nil &&
			(!strings.Contains(s.APIVersion, ".") || slices.Contains(schemaless, strings.Split(s.APIVersion, "/")[0])) {
			t.Errorf("%s is left, and is not in the folder", name)
		}
	}
}

// certified wants the certificates that were made by hand to be valid for one purpose, and signed by the authority.
func certified(t *testing.T, p *page) {
	t.Helper()
	if left, err := os.ReadDir(filepath.Join(p.state, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("private keys are left in %v, %v", left, err)
	}
	c := p.cluster(t)
	of := func(name, key string) *x509.Certificate {
		block, _ := pem.Decode(c.objects["Secret tollkeeper/"+name].value.(*corev1.Secret).Data[key])
		if block == nil {
			t.Fatalf("%s: no %s", name, key)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	roots := x509.NewCertPool()
	roots.AddCert(of("tollkeeper-ca", "tls.crt"))
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	for name, usage := range map[string]x509.ExtKeyUsage{"tollkeeper-tls": server, "envoy-client": client, "envoy-public": server} {
		leaf := of(name, "tls.crt")
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil || len(leaf.ExtKeyUsage) != 1 || leaf.IsCA {
			t.Errorf("%s: for %v, %v", name, leaf.ExtKeyUsage, err)
		}
		if !of(name, "ca.crt").Equal(of("tollkeeper-ca", "tls.crt")) {
			t.Errorf("%s: trusts another authority", name)
		}
	}
}

// Making the certificates by hand again keeps the authority, so that the old certificates stay valid.
func TestReadme_CertificatesByHandAreRenewed(t *testing.T) {
	p := openPage(t)
	byHand := example(t, "", "mktemp")
	p.sh(t, "git clone\nkubectl apply -k tollkeeper/k8s/namespace")
	secrets := func() map[string][]byte {
		found := make(map[string][]byte)
		for name, s := range p.cluster(t).objects {
			if v, ok := s.value.(*corev1.Secret); ok {
				found[name] = v.Data["tls.crt"]
			}
		}
		return found
	}
	p.sh(t, byHand)
	before := secrets()
	p.sh(t, byHand)
	certified(t, p)
	for name, now := range secrets() {
		if same := string(now) == string(before[name]); same != (name == "Secret tollkeeper/tollkeeper-ca") {
			t.Errorf("%s: kept: %t, want only the authority kept", name, same)
		}
	}
}

// The page's commands remove everything of a component: a leftover autoscaler would put three pods on one file.
func TestReadme_SeveralPodsAreTakenOut(t *testing.T) {
	p := openPage(t)
	p.sh(t, "git clone\nkubectl apply -k tollkeeper/k8s/namespace")
	p.write(t, "kustomization.yaml", "resources: [tollkeeper/k8s/base]\ncomponents: [tollkeeper/k8s/components/postgres]\n", false)
	p.sh(t, "kubectl apply -k .")
	p.write(t, "kustomization.yaml", "components: []", true)
	const autoscaler = "HorizontalPodAutoscaler tollkeeper/tollkeeper"
	if p.sh(t, "kubectl apply -k ."); p.cluster(t).objects[autoscaler] == nil {
		t.Error("the stand-in pruned an object that kubectl would leave")
	}
	p.sh(t, example(t, "", "--prune"))
	c := p.cluster(t)
	prunedIs(t, p)
	if c.objects[autoscaler] != nil || c.objects["Service tollkeeper/tollkeeper-pods"] != nil || c.objects["PersistentVolumeClaim tollkeeper/tollkeeper-data"] == nil {
		t.Errorf("left: %v", slices.Sorted(maps.Keys(c.objects)))
	}
}

// The page's command finds what an overlay leaves behind, in every namespace.
func TestReadme_LeftoversAreFound(t *testing.T) {
	p := openPage(t)
	p.sh(t, "git clone\nkubectl apply -k tollkeeper/k8s/istio/namespace\nkubectl apply -k tollkeeper/k8s/istio\nkubectl apply -k tollkeeper/k8s/istio/waypoint")
	found := p.sh(t, example(t, "", "api-resources"))
	for name, s := range p.cluster(t).objects {
		if kept := s.Kind == "Namespace" || s.Kind == "PersistentVolumeClaim"; kept == strings.Contains(found, name+"\n") {
			t.Errorf("%s: found %t", name, !kept)
		}
	}
}
