package harness

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// attempts is how often a process is started when its ports turn out to be taken.
const attempts = 4

// Layout holds the texts of a shipped configuration that name ports, sockets and folders. A test runs the file with these
// texts replaced, and nothing else.
type Layout struct {
	File        string // in the folder envoy
	Listener    string // for clients
	Upstream    string
	Tollkeepers []string
	Dir         string // of certificates and other files; empty: the configuration names none
}

// The shipped configurations.
var (
	Loopback = Layout{
		File: "envoy.yaml", Listener: "address: 127.0.0.1, port_value: 10000}", Upstream: shippedUpstream,
		Tollkeepers: []string{"{socket_address: {address: 127.0.0.1, port_value: 9001}}"},
	}
	TLS = Layout{
		File: "tls.yaml", Listener: "address: 0.0.0.0, port_value: 10443}", Upstream: shippedUpstream, Dir: "/etc/envoy/",
		Tollkeepers: []string{"{socket_address: {address: 10.0.0.11, port_value: 9001}}", "{socket_address: {address: 10.0.0.12, port_value: 9001}}"},
	}
	Sidecar = Layout{
		File: "sidecar.yaml", Listener: "address: 0.0.0.0, port_value: 10000}", Upstream: shippedUpstream,
		Tollkeepers: []string{"{pipe: {path: /run/tollkeeper/tollkeeper.sock}}"},
	}
)

const (
	shippedUpstream = "address: 127.0.0.1, port_value: 8080}"
	shippedAdmin    = "address: 127.0.0.1, port_value: 9901}"
)

// Places replace the texts of a Layout.
type Places struct {
	Listener, Admin, Upstream int      // ports on 127.0.0.1
	Tollkeepers               []string // ports on 127.0.0.1, as host:port, or sockets, as unix:/path
	Dir                       string   // replaces the layout's; ends with a slash
}

// Render returns the configuration with other places, and nothing else changed. It refuses a configuration that does not
// hold each text of the layout exactly once: the test would then run something else than what is shipped.
func (l Layout) Render(config []byte, p Places) ([]byte, error) {
	if len(p.Tollkeepers) != len(l.Tollkeepers) {
		return nil, fmt.Errorf("%s asks %d Tollkeepers, and there are %d", l.File, len(l.Tollkeepers), len(p.Tollkeepers))
	}
	port := func(n int) string { return fmt.Sprintf("address: 127.0.0.1, port_value: %d}", n) }
	oldnew := []string{l.Listener, port(p.Listener), shippedAdmin, port(p.Admin), l.Upstream, port(p.Upstream)}
	for i, t := range p.Tollkeepers {
		to, isPath := strings.CutPrefix(t, "unix:")
		if isPath {
			to = fmt.Sprintf("{pipe: {path: %s}}", to)
		} else if host, port, err := net.SplitHostPort(t); err == nil {
			to = fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port)
		} else {
			return nil, err
		}
		oldnew = append(oldnew, l.Tollkeepers[i], to)
	}
	for i := 0; i < len(oldnew); i += 2 {
		if n := bytes.Count(config, []byte(oldnew[i])); n != 1 {
			return nil, fmt.Errorf("%q occurs %d times in %s, want once", oldnew[i], n, l.File)
		}
	}
	if l.Dir != "" {
		oldnew = append(oldnew, l.Dir, p.Dir)
	}
	// All at once: a text that was just inserted is never replaced again.
	return []byte(strings.NewReplacer(oldnew...).Replace(string(config))), nil
}

// ProxyOptions say how to run Envoy.
type ProxyOptions struct {
	Binary      string   // see FindEnvoy
	Layout      Layout   // of Config; none: Loopback
	Config      []byte   // the text of the layout's file
	Tollkeeper  int      // port of the authorizer, if the layout has one
	Tollkeepers []string // see Places; empty: Tollkeeper's port
	Upstream    int      // port of the service behind Envoy
	Dir         string   // see Places
	Concurrency int      // worker threads; 0 is 1
}

// Proxy is a running Envoy.
type Proxy struct {
	places Places
	dir    string
	proc   *Process
	client *http.Client
}

// StartProxy starts Envoy and returns when it is ready. The caller stops it.
func StartProxy(ctx context.Context, o ProxyOptions) (*Proxy, error) {
	for attempt := 1; ; attempt++ {
		p, err := startProxyOnce(ctx, o)
		if errors.Is(err, errPortTaken) && attempt < attempts {
			continue
		}
		return p, err
	}
}

func startProxyOnce(ctx context.Context, o ProxyOptions) (*Proxy, error) {
	free, err := FreePorts(2)
	if err != nil {
		return nil, err
	}
	if o.Layout.File == "" {
		o.Layout = Loopback
	}
	if len(o.Tollkeepers) == 0 {
		o.Tollkeepers = []string{loopback(o.Tollkeeper)}
	}
	places := Places{Listener: free[0], Admin: free[1], Upstream: o.Upstream, Tollkeepers: o.Tollkeepers, Dir: o.Dir}
	config, err := o.Layout.Render(o.Config, places)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tollkeeper-envoy-")
	if err != nil {
		return nil, err
	}
	p := &Proxy{places: places, dir: dir, client: &http.Client{Timeout: 5 * time.Second}}
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	cmd := exec.Command(o.Binary, "-c", file, "--concurrency", strconv.Itoa(max(1, o.Concurrency)),
		"--disable-hot-restart", "--log-level", "warning", "--drain-time-s", "1")
	cmd.Dir = dir
	if p.proc, err = StartProcess(cmd); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.awaitReady(ctx); err != nil {
		p.proc.Kill()
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

func (p *Proxy) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return p.proc.Await(ctx, func() error {
		_, err := p.admin(ctx, "/ready")
		return err
	})
}

func (p *Proxy) admin(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback(p.places.Admin)+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("envoy answered %s with %s", path, resp.Status)
	}
	return body, err
}

// Addr is the host and port for clients.
func (p *Proxy) Addr() string { return loopback(p.places.Listener) }

// AdminAddr is the host and port of Envoy's admin interface.
func (p *Proxy) AdminAddr() string { return loopback(p.places.Admin) }

// PID is the process ID.
func (p *Proxy) PID() int { return p.proc.cmd.Process.Pid }

// Log returns the end of Envoy's output, which includes its access log.
func (p *Proxy) Log() string { return p.proc.Log() }

// Stats returns Envoy's counters and gauges by name. Unused ones may be missing.
func (p *Proxy) Stats(ctx context.Context) (map[string]int64, error) {
	body, err := p.admin(ctx, "/stats")
	if err != nil {
		return nil, err
	}
	stats := make(map[string]int64)
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), ": ")
		if n, err := strconv.ParseInt(value, 10, 64); ok && err == nil { // skip histograms and texts
			stats[name] = n
		}
	}
	return stats, lines.Err()
}

// Stop ends Envoy and removes its files.
func (p *Proxy) Stop() error {
	return errors.Join(p.proc.Stop(10*time.Second), os.RemoveAll(p.dir))
}
