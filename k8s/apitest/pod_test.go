package apitest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// patience is how long a process may take to do what it is started for.
const patience = 30 * time.Second

// pod is the container of a Deployment, run on this machine as the kubelet would run it: with its files, arguments and
// variables. Paths are those below root, and what is said in rewrite is said in another way.
type pod struct {
	root string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended; read it after done

	mu  sync.Mutex
	log bytes.Buffer
}

// material is the content of Secrets by name and key.
type material map[string]map[string][]byte

// runPod starts the container of a Deployment. It is stopped with the test.
func runPod(t *testing.T, w world, d *named[appsv1.Deployment], binary string, secrets material, rewrite ...string) *pod {
	t.Helper()
	p := &pod{root: t.TempDir(), done: make(chan struct{})}
	c := d.v.Spec.Template.Spec.Containers[0]
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
	p.cmd.Env = []string{"PATH=/nowhere"}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			p.cmd.Env = append(p.cmd.Env, e.Name+"="+here.Replace(e.Value))
		}
	}
	p.start(t)
	return p
}

// at is where a path of the container is on this machine.
func (p *pod) at(path string) string { return filepath.Join(p.root, path) }

// filesIn are the files of a volume.
func filesIn(w world, d *named[appsv1.Deployment], volume string, secrets material) map[string][]byte {
	vs := d.v.Spec.Template.Spec.Volumes
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

func (p *pod) start(t *testing.T) {
	t.Helper()
	p.cmd.Dir = p.root
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
		if t.Failed() {
			t.Logf("%s wrote:\n%s", filepath.Base(p.cmd.Path), p.output())
		}
	})
}

// Write keeps what the process writes.
func (p *pod) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *pod) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// line waits for a line with that in it.
func (p *pod) line(t *testing.T, with string) string {
	t.Helper()
	var found string
	await(t, p, func() error {
		lines := bufio.NewScanner(strings.NewReader(p.output()))
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

// await calls try until it succeeds, or the process ends, or it has taken too long.
func await(t *testing.T, p *pod, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-p.done:
			t.Fatalf("%s ended (%v) before: %v", filepath.Base(p.cmd.Path), p.err, err)
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

// end asks the process to end, as the kubelet would, and waits until it has.
func (p *pod) end(t *testing.T) error {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	return p.err
}

var _ io.Writer = (*pod)(nil)
