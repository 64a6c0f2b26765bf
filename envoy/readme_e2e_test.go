package envoy

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// notRun are the beginnings of blocks that are not run, because they take minutes. Other tests run these commands.
var notRun = []string{"make demo", "make test", "make bench"}

// readmes are the pages whose commands are run, each with patterns that the output has to match, in this order.
var readmes = map[string][]string{
	"README.md": {
		`(?m)^denied: 403 key_missing$`, `HTTP/1.1 403 Forbidden\r\n(.+\r\n)*x-authz-reason: key_missing`,
		`HTTP/1.1 200 OK\r\n(.+\r\n)*ratelimit: (.+\r\n)*\r\n\{"orders": \[\]\}`,
		`tests passed`, `(?m)^denied: 403 staging_closed$`, `(?m)^rule +data\.tollkeeper\.custom`, `(?m)^All is well\.$`,
	},
	"envoy/README.md": {
		`x-authz-reason: key_missing`, `HTTP/1.1 200 OK\r\n(.+\r\n)*ratelimit: "rate";r=\d+;(.+\r\n)*\r\n\{"orders": \[\]\}`,
		`HTTP/2 200 *\r\n(.+\r\n)*ratelimit: (.+\r\n)*\r\n\{"orders": \[\]\}`,
	},
	"policies/README.md": {`PASS: \d+/\d+`, `(?m)^evaluator +compiled$`},
}

// TestREADME_CommandsRun runs the commands of each page as a reader does who pastes all blocks into one terminal, in a clone
// of the repository, with a real Envoy.
func TestREADME_CommandsRun(t *testing.T) {
	root, err := harness.ModuleRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	for page, want := range readmes {
		t.Run(page, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "tollkeeper")
			clone(t, root, dir)
			moved := movePorts(t, dir)
			text, err := os.ReadFile(filepath.Join(root, page))
			if err != nil {
				t.Fatal(err)
			}
			out := runInTerminal(t, root, dir, moved.Replace(script(t, string(text))))
			rest := out
			for _, w := range want {
				at := regexp.MustCompile(w).FindStringIndex(rest)
				if at == nil {
					t.Fatalf("no %q in the rest of the output:\n%s\n== all of it:\n%s", w, rest, out)
				}
				rest = rest[at[1]:]
			}
		})
	}
}

// script turns a page into one script: its commands, and its named files, in their order.
func script(t *testing.T, page string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("set -euo pipefail\n")
	blocks := 0
	for rest := page; ; {
		_, after, ok := strings.Cut(rest, "\n```")
		if !ok {
			break
		}
		kind, after, _ := strings.Cut(after, "\n")
		body, after, ok := strings.Cut(after, "\n```")
		if !ok {
			t.Fatal("a block is not closed")
		}
		rest = after
		first, _, _ := strings.Cut(body, "\n")
		switch name, isFile := strings.CutPrefix(first, "# "); {
		case kind == "yaml" && isFile && strings.HasSuffix(name, ".yaml"):
			fmt.Fprintf(&b, "cat >%s <<'END OF FILE'\n%s\nEND OF FILE\n", name, body)
		case kind == "sh" && slices.ContainsFunc(notRun, func(s string) bool { return strings.HasPrefix(body, s) }):
		case kind == "sh":
			blocks++
			fmt.Fprintf(&b, "echo '== block %d: %s'\n%s\n", blocks, strings.ReplaceAll(first, "'", ""), body)
		case kind != "" && kind != "yaml":
			t.Errorf("a block of kind %q is not run: call it sh, or add the kind here", kind)
		}
	}
	if blocks == 0 {
		t.Fatal("the page has no commands")
	}
	return b.String()
}

// clone copies the files of a clone, without anything that was built.
func clone(t *testing.T, root, dir string) {
	t.Helper()
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		from, to := filepath.Join(root, e.Name()), filepath.Join(dir, e.Name())
		switch {
		case e.IsDir() && slices.Contains([]string{"authz", "cmd", "envoy", "k8s", "policies"}, e.Name()):
			copyFiles(t, from, to)
		case e.Name() == "Makefile" || strings.HasPrefix(e.Name(), "go."):
			text, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// movePorts replaces the ports of the configurations by free ones, so that the test does not disturb other processes. It
// returns a replacer that does the same for the commands. Nothing else is replaced.
func movePorts(t *testing.T, dir string) *strings.Replacer {
	t.Helper()
	var oldnew []string
	for _, port := range []int{8080, 9001, 9002, 9005, 9901, 10000, 10443} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		free := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		for _, before := range []string{"127.0.0.1:", "localhost:", "port_value: ", "http.server "} {
			oldnew = append(oldnew, before+strconv.Itoa(port), before+free)
		}
		switch port { // defaults of the binary
		case 9001:
			t.Setenv("TOLLKEEPER_LISTEN_GRPC", "127.0.0.1:"+free)
		case 9002:
			t.Setenv("TOLLKEEPER_LISTEN_ADMIN", "127.0.0.1:"+free)
		}
	}
	moved := strings.NewReplacer(append(oldnew, "/tmp/service", filepath.Join(t.TempDir(), "service"))...)
	for _, l := range []harness.Layout{harness.Loopback, harness.TLS, harness.Sidecar} {
		path := filepath.Join(dir, "envoy", l.File)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(moved.Replace(string(text))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return moved
}

// runInTerminal runs a script with bash in dir, and returns its output. It kills the processes that the script leaves.
func runInTerminal(t *testing.T, root, dir, text string) string {
	t.Helper()
	envoy, err := harness.FindEnvoy(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for name, line := range map[string]string{
		"envoy": fmt.Sprintf("exec %q \"$@\" --disable-hot-restart", envoy), // which would conflict with another Envoy of this machine
		"opa":   "exec go tool opa \"$@\"",                                  // the version in go.mod
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+line+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bash", "curl", "openssl", "python3", "make"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("the commands need %s: %v", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", text)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "XDG_CONFIG_HOME="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	out, err := os.Create(filepath.Join(t.TempDir(), "out")) // a file: background processes would keep a pipe open
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	printed, readErr := os.ReadFile(out.Name())
	if err != nil || readErr != nil {
		logs := new(bytes.Buffer)
		for _, name := range []string{"tollkeeper.log", "envoy.log", "service.log"} {
			if raw, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				fmt.Fprintf(logs, "-- %s\n%s", name, lastLines(string(raw), 12))
			}
		}
		t.Fatalf("%v, %v\n%s\n%s", err, readErr, printed, logs)
	}
	return string(printed)
}
