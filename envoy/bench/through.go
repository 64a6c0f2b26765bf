package main

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
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// clients is the number of connections to Envoy, each with one request at a time.
const clients = 8

// setup is an Envoy with or without an authorizer, and its measurements by round.
type setup struct {
	label, name string     // of a rival
	authorizer  authorizer // nil: none
	rounds      []*measurement
}

// compareThroughEnvoy measures requests through an Envoy with the shipped configuration: without an authorizer, and with
// those of the rivals that do nothing or are Tollkeeper with few keys.
func compareThroughEnvoy(ctx context.Context, sessions []*session, rounds int, s span) ([]*setup, error) {
	w, upstream, err := newEnvoyRun(ctx)
	if err != nil {
		return nil, err
	}
	defer upstream.close()
	w.span = s
	setups := []*setup{{label: noAuthorizer}}
	for _, one := range sessions {
		if rv := one.rivals[0]; rv.name == baseline || rv.name == sameAnswer || rv.name == "tollkeeper" {
			setups = append(setups, &setup{label: rv.label, name: rv.name, authorizer: one.authorizer})
		}
	}
	for round := range rounds {
		for i := range setups {
			one := setups[(round+i)%len(setups)]
			t, err := w.turn(ctx, uint64(round), one.authorizer)
			if err != nil {
				return nil, fmt.Errorf("through Envoy, %s: %w", one.label, err)
			}
			progress("round %d of %d: Envoy, %-24s %8s requests/s, median %s",
				round+1, rounds, one.label, count(t.perSecond()), millis(t.latency.quantile(.5)))
			one.rounds = append(one.rounds, t)
		}
	}
	return setups, nil
}

// envoyRun is what the turns of all setups share.
type envoyRun struct {
	envoy    string
	config   []byte
	upstream int
	load     load
	span     span
}

// newEnvoyRun finds Envoy and its shipped configuration, and starts the upstream.
func newEnvoyRun(ctx context.Context) (w envoyRun, _ *upstream, err error) {
	root, err := harness.ModuleRoot(".")
	if err != nil {
		return w, nil, err
	}
	if w.envoy, err = harness.FindEnvoy(ctx, root); err != nil {
		return w, nil, err
	}
	if w.config, err = os.ReadFile(filepath.Join(root, "envoy", "envoy.yaml")); err != nil {
		return w, nil, err
	}
	up, err := startUpstream()
	if err != nil {
		return w, nil, err
	}
	w.upstream, w.load = up.port(), loadOf(newPopulation(smallSet), smallSet)
	return w, up, nil
}

// turn starts an Envoy and an authorizer, if there is one, loads and measures them, and stops them.
func (w *envoyRun) turn(ctx context.Context, round uint64, a authorizer) (_ *measurement, err error) {
	syscall.Sync() // as in turn
	config, port := w.config, w.upstream
	if a == nil {
		if config, err = withoutAuthorizer(config); err != nil {
			return nil, err
		}
	} else {
		if port, _, err = a.start(ctx); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, a.stop()) }()
	}
	proxy, err := harness.StartProxy(ctx, harness.ProxyOptions{Binary: w.envoy, Config: config, Tollkeeper: port, Upstream: w.upstream})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, proxy.Stop()) }()
	return requests(ctx, proxy.Addr(), &w.load, round, w.span)
}

// withoutAuthorizer removes the ext_authz filter from the shipped configuration, and changes nothing else.
func withoutAuthorizer(config []byte) ([]byte, error) {
	from, to := []byte("- name: envoy.filters.http.ext_authz\n"), []byte("- name: envoy.filters.http.router\n")
	if bytes.Count(config, from) != 1 || bytes.Count(config, to) != 1 {
		return nil, errors.New("the filters cannot be found in the Envoy configuration")
	}
	begin, end := bytes.Index(config, from), bytes.Index(config, to)
	if end < begin {
		return nil, errors.New("ext_authz is not before the router in the Envoy configuration")
	}
	return slices.Concat(config[:begin], config[end:]), nil
}

// requests sends requests to Envoy over connections that stay open.
func requests(ctx context.Context, addr string, l *load, round uint64, s span) (*measurement, error) {
	calls := make([]call, clients)
	for i := range calls {
		asker, err := l.asker(seed{round, uint64(i)})
		if err != nil {
			return nil, err
		}
		c, err := newClient(addr, "/v1/orders", asker)
		if err != nil {
			return nil, err
		}
		defer c.conn.Close()
		if err := c.conn.SetDeadline(time.Now().Add(s.warmUp + s.measured + patience)); err != nil {
			return nil, err
		}
		calls[i] = func(context.Context, time.Time) error { return c.get() }
	}
	return drive(ctx, s, calls, func() error { return nil })
}

// client sends requests with different keys over one connection.
type client struct {
	conn    net.Conn
	reader  *bufio.Reader
	asker   *asker
	request []byte
	key     int // offset of the key in the request
}

func newClient(addr, path string, a *asker) (*client, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	head := "GET " + path + " HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: example-sdk-python/4.2.1\r\n" +
		"Accept: application/json\r\nAccept-Language: en-GB,en;q=0.8\r\nX-Client-Version: 2026-05-01\r\nX-Api-Key: "
	request := append(appendKey([]byte(head), 0), "\r\n\r\n"...)
	return &client{
		conn: conn, reader: bufio.NewReader(conn), asker: a, request: request, key: len(head)}, nil
}

func (c *client) get() error {
	copy(c.request[c.key:], c.asker.key())
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return denial(fmt.Sprintf("%d %s", resp.StatusCode, resp.Header.Get("x-authz-reason")))
	}
	return nil
}

// upstream is a service that answers ok.
type upstream struct {
	server   *http.Server
	listener net.Listener
	done     chan struct{}
}

func startUpstream() (*upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &upstream{listener: l, done: make(chan struct{}), server: &http.Server{
		ReadHeaderTimeout: patience,
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }),
	}}
	go func() {
		defer close(u.done)
		_ = u.server.Serve(l) // until close
	}()
	return u, nil
}

func (u *upstream) port() int { return u.listener.Addr().(*net.TCPAddr).Port }

func (u *upstream) close() {
	_ = u.server.Close()
	<-u.done
}
