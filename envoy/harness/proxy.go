package harness

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// attempts is how often something is started when its ports turn out to be taken.
const attempts = 4

// Ports are the ports that envoy/envoy.yaml speaks of.
type Ports struct {
	Listener   int // where clients come in
	Admin      int // Envoy's own interface
	Tollkeeper int // ext_authz
	Upstream   int
}

// shippedPorts are those in envoy/envoy.yaml.
var shippedPorts = Ports{Listener: 10000, Admin: 9901, Tollkeeper: 9001, Upstream: 8080}

// Render returns the configuration with other ports, and nothing else changed. It refuses a configuration in which one
// of the shipped ports does not stand exactly once: what would be tested then is not what is shipped.
func Render(config []byte, p Ports) ([]byte, error) {
	pairs := []struct{ from, to int }{
		{shippedPorts.Listener, p.Listener}, {shippedPorts.Admin, p.Admin},
		{shippedPorts.Tollkeeper, p.Tollkeeper}, {shippedPorts.Upstream, p.Upstream},
	}
	var oldnew []string
	for _, pair := range pairs {
		from := fmt.Sprintf("address: 127.0.0.1, port_value: %d}", pair.from)
		if n := bytes.Count(config, []byte(from)); n != 1 {
			return nil, fmt.Errorf("%q stands %d times in the Envoy configuration, want once", from, n)
		}
		oldnew = append(oldnew, from, fmt.Sprintf("address: 127.0.0.1, port_value: %d}", pair.to))
	}
	// All at once: a port that was just put in is never taken for one to replace.
	return []byte(strings.NewReplacer(oldnew...).Replace(string(config))), nil
}

// ProxyOptions say how to run Envoy.
type ProxyOptions struct {
	Binary      string // see FindEnvoy
	Config      []byte // the text of envoy/envoy.yaml
	Tollkeeper  int    // port of the authorizer
	Upstream    int    // port of the service behind Envoy
	Concurrency int    // worker threads; 0 is 1
}

// Proxy is a running Envoy.
type Proxy struct {
	ports  Ports
	dir    string
	proc   *process
	client *http.Client
}

// StartProxy starts Envoy and returns when it serves. The caller stops it.
func StartProxy(ctx context.Context, o ProxyOptions) (*Proxy, error) {
	for attempt := 1; ; attempt++ {
		p, err := startProxyOnce(ctx, o)
		if errors.Is(err, errPortTaken) && attempt < attempts {
			continue
		}
		return p, err
	}
}

var errPortTaken = errors.New("a port was taken by somebody else")

func startProxyOnce(ctx context.Context, o ProxyOptions) (*Proxy, error) {
	free, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	ports := Ports{Listener: free[0], Admin: free[1], Tollkeeper: o.Tollkeeper, Upstream: o.Upstream}
	config, err := Render(o.Config, ports)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tollkeeper-envoy-")
	if err != nil {
		return nil, err
	}
	p := &Proxy{ports: ports, dir: dir, client: &http.Client{Timeout: 5 * time.Second}}
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p.proc, err = startProcess(new(tail), dir, o.Binary, "-c", file, "--concurrency", strconv.Itoa(max(1, o.Concurrency)),
		"--disable-hot-restart", "--log-level", "warning", "--drain-time-s", "1")
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.awaitReady(ctx); err != nil {
		p.proc.kill()
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

func (p *Proxy) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return poll(ctx, p.proc, func() error {
		_, err := p.admin(ctx, "/ready")
		return err
	})
}

// poll calls try until it succeeds, the process ends, or ctx does.
func poll(ctx context.Context, proc *process, try func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-proc.done:
			log := proc.log.String()
			if strings.Contains(strings.ToLower(log), "address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("%s ended before it was ready (%v):\n%s", filepath.Base(proc.cmd.Path), proc.err, log)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready (%w):\n%s", filepath.Base(proc.cmd.Path), err, proc.log)
		}
	}
}

func (p *Proxy) admin(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback(p.ports.Admin)+path, nil)
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

// Addr is where clients reach the proxy: host and port.
func (p *Proxy) Addr() string { return loopback(p.ports.Listener) }

// AdminAddr is where Envoy's own interface listens: host and port.
func (p *Proxy) AdminAddr() string { return loopback(p.ports.Admin) }

// Log returns the end of what Envoy wrote, its access log included.
func (p *Proxy) Log() string { return p.proc.log.String() }

// Stats returns Envoy's counters and gauges by name. Those that were never used may be missing.
func (p *Proxy) Stats(ctx context.Context) (map[string]int64, error) {
	body, err := p.admin(ctx, "/stats")
	if err != nil {
		return nil, err
	}
	stats := make(map[string]int64)
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), ": ")
		if n, err := strconv.ParseInt(value, 10, 64); ok && err == nil { // histograms and texts are left out
			stats[name] = n
		}
	}
	return stats, lines.Err()
}

// Stop ends Envoy and removes its files.
func (p *Proxy) Stop() error {
	return errors.Join(p.proc.stop(10*time.Second), os.RemoveAll(p.dir))
}
