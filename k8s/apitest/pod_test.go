package apitest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// patience is how long a process may take to become ready, or to end.
const patience = 30 * time.Second

// pod is the container of a Deployment or a Job, run on this machine as the kubelet would run it: with its files, arguments and
// variables. Its paths are below root.
type pod struct {
	*harness.Process
	root string
	cmd  *exec.Cmd
}

// material is the content of Secrets by name and key.
type material map[string]map[string][]byte

// deployment is the pods of a Deployment of ours.
func deployment(t *testing.T, w world, name string) podsOf {
	t.Helper()
	d := one[appsv1.Deployment](w, "tollkeeper", name)
	if d == nil {
		t.Fatalf("no Deployment %s", name)
	}
	return podsOf{d.object, &d.v.Spec.Template}
}

// runPod starts the container of pods. Texts given in pairs as rewrite, old and new, are replaced in its files,
// arguments and variables. The process is killed at the end of the test.
func runPod(t *testing.T, w world, d podsOf, binary string, secrets material, rewrite ...string) *pod {
	t.Helper()
	p := &pod{root: t.TempDir()}
	c := d.v.Spec.Containers[0]
	paths := rewrite
	for _, m := range c.VolumeMounts {
		paths = append(paths, m.MountPath, p.at(m.MountPath))
	}
	here := strings.NewReplacer(paths...)
	for _, m := range c.VolumeMounts {
		if err := os.MkdirAll(p.at(m.MountPath), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, content := range filesIn(w, d, m.Name, secrets) {
			if m.Name == "config" {
				content = []byte(here.Replace(string(content)))
			}
			if err := os.WriteFile(filepath.Join(p.at(m.MountPath), name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	var args []string
	for _, a := range c.Args {
		args = append(args, here.Replace(a))
	}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Dir = p.root
	p.cmd.Env = []string{"PATH=/nowhere"}
	for _, e := range c.Env {
		switch {
		case e.ValueFrom == nil:
			p.cmd.Env = append(p.cmd.Env, e.Name+"="+here.Replace(e.Value))
		case e.ValueFrom.SecretKeyRef != nil:
			ref := e.ValueFrom.SecretKeyRef
			p.cmd.Env = append(p.cmd.Env, e.Name+"="+string(secrets[ref.Name][ref.Key]))
		}
	}
	var err error
	if p.Process, err = harness.StartProcess(p.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", filepath.Base(binary), p.Log())
		}
	})
	return p
}

// at is where a path of the container is on this machine.
func (p *pod) at(path string) string { return filepath.Join(p.root, path) }

// filesIn are the files of a volume.
func filesIn(w world, d podsOf, volume string, secrets material) map[string][]byte {
	vs := d.v.Spec.Volumes
	v := vs[slices.IndexFunc(vs, func(v corev1.Volume) bool { return v.Name == volume })]
	switch {
	case v.Secret != nil:
		return secrets[v.Secret.SecretName]
	case v.ConfigMap != nil:
		files := make(map[string][]byte)
		for name, text := range one[corev1.ConfigMap](w, d.Metadata.Namespace, v.ConfigMap.Name).v.Data {
			files[name] = []byte(text)
		}
		return files
	}
	return nil
}

// line waits for a line of output that contains a text, and returns the line.
func (p *pod) line(t *testing.T, with string) string {
	t.Helper()
	var found string
	await(t, p, func() error {
		lines := bufio.NewScanner(strings.NewReader(p.Log()))
		for lines.Scan() {
			if strings.Contains(lines.Text(), with) {
				found = lines.Text()
				return nil
			}
		}
		return fmt.Errorf("no %q", with)
	})
	return found
}

// await calls try until it succeeds, and fails the test when the process ends first or it takes too long.
func await(t *testing.T, p *pod, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Await(ctx, try); err != nil {
		t.Fatal(err)
	}
}

// exec runs the binary as `kubectl exec` would: with the variables of the pod.
func (p *pod) exec(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.cmd.Path, args...)
	cmd.Env = p.cmd.Env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("tollkeeper %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
