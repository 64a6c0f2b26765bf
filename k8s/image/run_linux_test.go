package main

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// container is an unpacked image.
type container struct {
	root   string
	config ocispec.ImageConfig
	jailed bool // whether processes run chrooted in the image, which requires root
	env    []string
}

// unpack writes the files of the image into a folder.
func unpack(t *testing.T) *container {
	t.Helper()
	p := pull(t)
	c := &container{root: t.TempDir(), config: p.config.Config, jailed: os.Geteuid() == 0}
	for _, name := range slices.Sorted(maps.Keys(p.files)) {
		e, path := p.files[name], filepath.Join(c.root, name)
		mode := fs.FileMode(e.Mode)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.Mkdir(path, mode)
		} else {
			err = os.WriteFile(path, e.data, mode)
		}
		if err == nil {
			err = os.Chmod(path, mode)
		}
		if err == nil && c.jailed {
			err = os.Lchown(path, e.Uid, e.Gid)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// command is a process in the container: by default the image's own command.
func (c *container) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if len(args) == 0 {
		args = c.config.Cmd
	}
	args = append(slices.Clone(c.config.Entrypoint), args...)
	env := append(slices.Clone(c.config.Env), c.env...)
	cmd := exec.CommandContext(t.Context(), args[0])
	cmd.Args, cmd.Env, cmd.Dir = args, env, c.config.WorkingDir
	if c.jailed {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: c.root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		return cmd
	}
	// Without root, put the same paths below the folder. The default configuration names the data directory.
	cmd.Dir, cmd.Path = c.root+cmd.Dir, c.root+cmd.Path
	for i, a := range cmd.Args {
		if strings.HasPrefix(a, "/") {
			cmd.Args[i] = c.root + a
		}
	}
	for i, e := range cmd.Env {
		cmd.Env[i] = strings.Replace(e, "=/", "="+c.root+"/", 1)
	}
	cmd.Env = append(cmd.Env, "TOLLKEEPER_DATA_DIR="+c.root+"/var/lib/tollkeeper")
	return cmd
}

// run runs a command to its end, as docker exec would.
func (c *container) run(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := c.command(t, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tollkeeper %v: %v\n%s", args, err, &stderr)
	}
	return out
}

// start starts the image's own command, and returns the address for checks when it serves.
func (c *container) start(t *testing.T) (*exec.Cmd, string) {
	t.Helper()
	cmd := c.command(t)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var said strings.Builder
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		var line struct{ Msg, GRPC string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
			go func() { // otherwise a full pipe would block the process
				for lines.Scan() {
				}
			}()
			return cmd, line.GRPC
		}
	}
	t.Fatalf("the server did not start:\n%s", &said)
	return nil, ""
}

// files are the paths in the container outside of the data directory.
func (c *container) files(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(c.root, func(path string, d fs.DirEntry, err error) error {
		if d.Name() == "tollkeeper" && strings.HasSuffix(path, "/var/lib/tollkeeper") {
			return fs.SkipDir
		}
		out = append(out, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestContainer_RunsAsTheImageSays runs the image's own command with its arguments, environment and, as root, its user. Only
// the ports and the time limit of a check differ.
func TestContainer_RunsAsTheImageSays(t *testing.T) {
	c := unpack(t)
	before := c.files(t)
	c.env = []string{"TOLLKEEPER_LISTEN_GRPC=127.0.0.1:0", "TOLLKEEPER_LISTEN_ADMIN=127.0.0.1:0", "TOLLKEEPER_REQUEST_TIMEOUT=10s"}
	cmd, address := c.start(t)

	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	health, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "envoy.service.auth.v3.Authorization"})
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("health is %v, %v", health.GetStatus(), err)
	}
	checks := authv3.NewAuthorizationClient(conn)
	if status, reason := ask(t, checks, ""); status != 403 || reason != "key_missing" {
		t.Errorf("without a key: %d %q: want 403 key_missing", status, reason)
	}

	c.run(t, "account", "create", "acme", "--plan", "free")
	var made struct{ Key string }
	if err := json.Unmarshal(c.run(t, "key", "create", "--account", "acme", "--output", "json"), &made); err != nil {
		t.Fatal(err)
	}
	if status, reason := ask(t, checks, made.Key); status != 200 {
		t.Errorf("with a key: %d %q: want it allowed", status, reason)
	}

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if after := c.files(t); !slices.Equal(before, after) {
		t.Errorf("the server wrote outside its data directory: %v became %v", before, after)
	}
}

// TestContainer_RunsOwnPolicies starts the image with policies on its volume and a plan in a time zone, because the image has
// no time zone files.
func TestContainer_RunsOwnPolicies(t *testing.T) {
	c := unpack(t)
	const policies = "/var/lib/tollkeeper/policies"
	c.run(t, "policy", "init", policies)
	plans := filepath.Join(c.root, policies, "plans.yaml")
	data, err := os.ReadFile(plans)
	if err != nil {
		t.Fatal(err)
	}
	zoned := strings.ReplaceAll(string(data), "window: day,", "window: day, zone: Australia/Lord_Howe,")
	if zoned == string(data) {
		t.Fatal("no plan has a limit a day")
	}
	if err := os.WriteFile(plans, []byte(zoned), 0o644); err != nil {
		t.Fatal(err)
	}
	c.env = []string{"TOLLKEEPER_LISTEN_GRPC=127.0.0.1:0", "TOLLKEEPER_LISTEN_ADMIN=127.0.0.1:0", "TOLLKEEPER_POLICY_PATHS=" + policies}
	c.start(t)
}

// ask sends a check, and returns 200 for an allow, or the status and reason of a denial.
func ask(t *testing.T, checks authv3.AuthorizationClient, key string) (int, string) {
	t.Helper()
	headers := map[string]string{":method": "GET", ":path": "/v1/orders", ":authority": "api.example"}
	if key != "" {
		headers["x-api-key"] = key
	}
	resp, err := checks.Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/v1/orders", Host: "api.example", Protocol: "HTTP/1.1", Headers: headers,
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	denied := resp.GetDeniedResponse()
	if denied == nil && resp.GetOkResponse() != nil && resp.GetStatus().GetCode() == 0 {
		return 200, ""
	}
	for _, h := range denied.GetHeaders() {
		if h.GetHeader().GetKey() == "x-authz-reason" {
			return int(denied.GetStatus().GetCode()), h.GetHeader().GetValue() + string(h.GetHeader().GetRawValue())
		}
	}
	return int(denied.GetStatus().GetCode()), ""
}
