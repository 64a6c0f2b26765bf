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

// healthService is the name under which Tollkeeper reports that it can decide.
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
	Policies string        // folder of the policy bundle; empty: the one in the binary
	Extra    string        // further top-level sections of the configuration file, as YAML
	Events   bool          // whether it listens for others who revoke tokens
	Socket   string        // path of a Unix socket on which it answers checks; empty: a port
	Listen   string        // further members of listen, as YAML: "max_connection_age: 1s"
	Delay    time.Duration // its shutdown.delay
}

// Tollkeeper is a Tollkeeper with a configuration and data of its own, and the process while it runs. The data stay
// from one run to the next. It is not safe for concurrent use, except that CLI, Metrics and Log may be called at any time
// while it runs.
type Tollkeeper struct {
	o                   TollkeeperOptions
	dir                 string
	grpc, admin, health int
	events              int // 0: it does not listen
	log                 *tail
	proc                *process // nil while it does not run
}

// StartTollkeeper starts a Tollkeeper on new data and returns when it is ready. The caller closes it.
func StartTollkeeper(ctx context.Context, o TollkeeperOptions) (*Tollkeeper, error) {
	for attempt := 1; ; attempt++ {
		dir, err := os.MkdirTemp("", "tollkeeper-data-")
		if err != nil {
			return nil, err
		}
		ports, err := freePorts(4)
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

// Start runs it again after Stop or Kill, with the same ports and data, and returns when it is ready.
func (t *Tollkeeper) Start(ctx context.Context) error {
	if t.proc != nil {
		return errors.New("tollkeeper is running already")
	}
	config := filepath.Join(t.dir, "tollkeeper.yaml")
	if err := os.WriteFile(config, t.config(), 0o600); err != nil {
		return err
	}
	proc, err := startProcess(t.log, t.dir, t.o.Binary, "serve", "--config", config)
	if err != nil {
		return err
	}
	if err := t.awaitReady(ctx, proc); err != nil {
		proc.kill()
		return err
	}
	t.proc = proc
	return nil
}

// SetDelay sets its shutdown.delay, from the next Start on.
func (t *Tollkeeper) SetDelay(d time.Duration) { t.o.Delay = d }

func (t *Tollkeeper) config() []byte {
	var b strings.Builder
	// Health has a port of its own, as the one for checks may want certificates.
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
		fmt.Fprintf(&b, "policy: {paths: [%q]}\n", t.o.Policies)
	}
	b.WriteString(t.o.Extra)
	return []byte(b.String())
}

func (t *Tollkeeper) awaitReady(ctx context.Context, proc *process) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+loopback(t.health), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	health := grpc_health_v1.NewHealthClient(conn)
	return poll(ctx, proc, func() error {
		// A refused connection waits a second before the next try unless it is told not to.
		conn.ResetConnectBackoff()
		resp, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: healthService})
		if err == nil && resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			err = fmt.Errorf("health is %v", resp.GetStatus())
		}
		return err
	})
}

// Port is where it answers checks, on 127.0.0.1, if it has no socket.
func (t *Tollkeeper) Port() int { return t.grpc }

// Address is where it answers checks: host:port, or unix:/path.
func (t *Tollkeeper) Address() string {
	if t.o.Socket != "" {
		return "unix:" + t.o.Socket
	}
	return loopback(t.grpc)
}

// PID is the process that runs, 0 when none does.
func (t *Tollkeeper) PID() int {
	if t.proc == nil {
		return 0
	}
	return t.proc.cmd.Process.Pid
}

// Signal sends a signal to the process. Kill is the one that waits for its end.
func (t *Tollkeeper) Signal(s os.Signal) error {
	if t.proc == nil {
		return errors.New("tollkeeper does not run")
	}
	return t.proc.cmd.Process.Signal(s)
}

// AdminURL is where its admin API answers, and Token what the API wants.
func (t *Tollkeeper) AdminURL() string { return "http://" + loopback(t.admin) }

// EventsURL is where others revoke tokens, if it listens for them.
func (t *Tollkeeper) EventsURL() string { return "http://" + loopback(t.events) }

// Token is the admin token.
func (t *Tollkeeper) Token() (string, error) {
	token, err := os.ReadFile(t.tokenFile())
	return strings.TrimSpace(string(token)), err
}

// DataDir is its data directory, which stays from one run to the next.
func (t *Tollkeeper) DataDir() string { return filepath.Join(t.dir, "data") }

// Log returns the end of what it wrote in all its runs.
func (t *Tollkeeper) Log() string { return t.log.String() }

// CLI runs the binary as an operator would, against this instance, and returns the JSON that it printed.
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

// Metrics returns what a Prometheus server would scrape.
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

// Stop ends the process in good order.
func (t *Tollkeeper) Stop() error {
	if t.proc == nil {
		return nil
	}
	proc := t.proc
	t.proc = nil
	return proc.stop(15 * time.Second)
}

// Kill ends the process with SIGKILL, as a crash would.
func (t *Tollkeeper) Kill() {
	if t.proc != nil {
		t.proc.kill()
		t.proc = nil
	}
}

// Close stops it if it runs, and removes its data.
func (t *Tollkeeper) Close() error {
	return errors.Join(t.Stop(), os.RemoveAll(t.dir))
}
