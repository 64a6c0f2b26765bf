package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// healthService is the gRPC health service that says whether Tollkeeper can decide.
const healthService = "envoy.service.auth.v3.Authorization"

// BuildTollkeeper compiles the binary from the module at root into dir and returns its path.
func BuildTollkeeper(ctx context.Context, root, dir string) (string, error) {
	path := filepath.Join(dir, "tollkeeper")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/tollkeeper")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// TollkeeperOptions say how to run Tollkeeper.
type TollkeeperOptions struct {
	Binary   string        // see BuildTollkeeper
	Policies string        // folder of the policy bundle; empty: the embedded bundle
	Query    string        // policy.query; empty: the default. It needs Policies
	Extra    string        // more top-level sections of the configuration file, as YAML
	Events   bool          // whether to open listen.events
	Socket   string        // path of a Unix socket for checks; empty: a port
	Listen   string        // more fields of listen, as YAML: "max_connection_age: 1s"
	Delay    time.Duration // shutdown.delay
}

// Tollkeeper has a configuration and data, which last from one run to the next, and a process while it runs. It is not
// safe for concurrent use, but CLI, Metrics and Log may be called at any time while it runs.
type Tollkeeper struct {
	o                   TollkeeperOptions
	dir                 string
	grpc, admin, health int
	events              int // 0: closed
	log                 *tail
	proc                *Process // nil while it does not run
}

// StartTollkeeper starts a Tollkeeper on new data and returns when it is ready. The caller closes it.
func StartTollkeeper(ctx context.Context, o TollkeeperOptions) (*Tollkeeper, error) {
	for attempt := 1; ; attempt++ {
		dir, err := os.MkdirTemp("", "tollkeeper-data-")
		if err != nil {
			return nil, err
		}
		ports, err := FreePorts(4)
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		t := &Tollkeeper{o: o, dir: dir, grpc: ports[0], admin: ports[1], health: ports[2], log: new(tail)}
		if o.Events {
			t.events = ports[3]
		}
		err = t.Start(ctx)
		if err == nil {
			return t, nil
		}
		_ = os.RemoveAll(dir)
		if !errors.Is(err, errPortTaken) || attempt == attempts {
			return nil, err
		}
	}
}

// Start runs it again after Stop or Kill, on the same ports and data, and returns when it is ready.
func (t *Tollkeeper) Start(ctx context.Context) error {
	if t.proc != nil {
		return errors.New("tollkeeper is running already")
	}
	config := filepath.Join(t.dir, "tollkeeper.yaml")
	if err := os.WriteFile(config, t.config(), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(t.o.Binary, "serve", "--config", config)
	cmd.Dir = t.dir
	proc, err := startProcess(t.log, cmd)
	if err != nil {
		return err
	}
	if err := t.awaitReady(ctx, proc); err != nil {
		proc.Kill()
		return err
	}
	t.proc = proc
	return nil
}

// SetDelay sets shutdown.delay. It takes effect at the next Start.
func (t *Tollkeeper) SetDelay(d time.Duration) { t.o.Delay = d }

func (t *Tollkeeper) config() []byte {
	var b strings.Builder
	// Health has its own port, because the one for checks may require certificates.
	fmt.Fprintf(&b, "listen: {grpc: %q, admin: %q, health: %q", t.Address(), loopback(t.admin), loopback(t.health))
	if t.events != 0 {
		fmt.Fprintf(&b, ", events: %q", loopback(t.events))
	}
	if t.o.Listen != "" {
		b.WriteString(", " + t.o.Listen)
	}
	b.WriteString("}\n")
	fmt.Fprintf(&b, "shutdown: {delay: %v}\n", t.o.Delay)
	fmt.Fprintf(&b, "data_dir: %q\n", t.DataDir())
	if t.o.Policies != "" {
		fmt.Fprintf(&b, "policy: {paths: [%q]", t.o.Policies)
		if t.o.Query != "" {
			fmt.Fprintf(&b, ", query: %q", t.o.Query)
		}
		b.WriteString("}\n")
	}
	b.WriteString(t.o.Extra)
	return []byte(b.String())
}

func (t *Tollkeeper) awaitReady(ctx context.Context, proc *Process) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+loopback(t.health), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	health := grpc_health_v1.NewHealthClient(conn)
	return proc.Await(ctx, func() error {
		// Otherwise a refused connection waits a second before the next try.
		conn.ResetConnectBackoff()
		resp, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: healthService})
		if err == nil && resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			err = fmt.Errorf("health is %v", resp.GetStatus())
		}
		return err
	})
}

// Port is the port for checks on 127.0.0.1, if it has no socket.
func (t *Tollkeeper) Port() int { return t.grpc }

// Address is the address for checks: host:port, or unix:/path.
func (t *Tollkeeper) Address() string {
	if t.o.Socket != "" {
		return "unix:" + t.o.Socket
	}
	return loopback(t.grpc)
}

// PID is the process ID, 0 while it does not run.
func (t *Tollkeeper) PID() int {
	if t.proc == nil {
		return 0
	}
	return t.proc.cmd.Process.Pid
}

// Signal sends a signal to the process and does not wait.
func (t *Tollkeeper) Signal(s os.Signal) error {
	if t.proc == nil {
		return errors.New("tollkeeper does not run")
	}
	return t.proc.cmd.Process.Signal(s)
}

// AdminURL is the base URL of the admin API, which requires the Token.
func (t *Tollkeeper) AdminURL() string { return "http://" + loopback(t.admin) }

// EventsURL is the base URL of listen.events, if it is open.
func (t *Tollkeeper) EventsURL() string { return "http://" + loopback(t.events) }

// Token is the admin token.
func (t *Tollkeeper) Token() (string, error) {
	token, err := os.ReadFile(t.tokenFile())
	return strings.TrimSpace(string(token)), err
}

// DataDir is the data directory, which lasts from one run to the next.
func (t *Tollkeeper) DataDir() string { return filepath.Join(t.dir, "data") }

// Log returns the end of its output over all runs.
func (t *Tollkeeper) Log() string { return t.log.String() }

// CLI runs the binary as an operator would, against this instance, and returns the JSON it prints.
func (t *Tollkeeper) CLI(ctx context.Context, args ...string) ([]byte, error) {
	args = append([]string{"--admin", t.AdminURL(), "--token-file", t.tokenFile(), "--output", "json"}, args...)
	cmd := exec.CommandContext(ctx, t.o.Binary, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("tollkeeper %s: %w\n%s%s", strings.Join(args[6:], " "), err, &stdout, &stderr)
	}
	return stdout.Bytes(), nil
}

func (t *Tollkeeper) tokenFile() string { return filepath.Join(t.DataDir(), "admin.token") }

// Metrics returns the text that Prometheus would scrape.
func (t *Tollkeeper) Metrics(ctx context.Context) (string, error) {
	token, err := t.Token()
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.AdminURL()+"/metrics", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET /metrics: %s", resp.Status)
	}
	return string(body), err
}

// Stop shuts the process down and waits for its end.
func (t *Tollkeeper) Stop() error {
	if t.proc == nil {
		return nil
	}
	proc := t.proc
	t.proc = nil
	return proc.Stop(15 * time.Second)
}

// Restart stops it and starts it again. The stop returns its leases and writes what was spent.
func (t *Tollkeeper) Restart(ctx context.Context) error {
	if err := t.Stop(); err != nil {
		return err
	}
	return t.Start(ctx)
}

// Kill ends the process with SIGKILL, as a crash would.
func (t *Tollkeeper) Kill() {
	if t.proc != nil {
		t.proc.Kill()
		t.proc = nil
	}
}

// Close stops it if it runs, and removes its data.
func (t *Tollkeeper) Close() error {
	return errors.Join(t.Stop(), os.RemoveAll(t.dir))
}
