package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/extauthz"
	"github.com/tollkeeper-authz/tollkeeper/authz/signals"
)

// port is a listener and what serves it.
type port struct {
	name     string // of the field in the configuration: listen.NAME
	listener net.Listener
	serve    func() error          // returns nil after stop
	stop     func(context.Context) // lets calls under way finish until the context ends
}

// ports are the ports that a server has opened.
type ports []*port

// address returns where the port of that name listens, "" if it is not open.
func (ps ports) address(name string) string {
	for _, p := range ps {
		switch a := p.listener.Addr(); {
		case p.name != name:
		case a.Network() == "unix":
			return config.UnixPrefix + a.String()
		default:
			return a.String()
		}
	}
	return ""
}

// serve serves all ports. The channel reports ports that failed.
func (ps ports) serve(wg *sync.WaitGroup) <-chan error {
	failed := make(chan error, len(ps))
	for _, p := range ps {
		wg.Go(func() {
			if err := p.serve(); err != nil {
				failed <- fmt.Errorf("%s: %w", p.name, err)
			}
		})
	}
	return failed
}

// drain stops all ports at once, but for health: probes are answered until all others are done.
func (ps ports) drain(ctx context.Context) {
	var wg sync.WaitGroup
	for _, p := range ps {
		if p.name != "health" {
			wg.Go(func() { p.stop(ctx) })
		}
	}
	wg.Wait()
	for _, p := range ps {
		if p.name == "health" {
			p.stop(ctx)
		}
	}
}

// close closes the listeners, whether they were served or not.
func (ps ports) close() {
	for _, p := range ps {
		_ = p.listener.Close()
	}
}

func (s *Server) openPorts(registry *prometheus.Registry, events signals.Options, adminHandler http.Handler) error {
	for _, open := range []func() error{
		func() error { return s.openGRPC(registry) },
		s.openHealth,
		func() error { return s.openMetrics(registry) },
		func() error { return s.openEvents(events) },
		func() error { return s.openHTTP("admin", s.cfg.Listen.Admin, adminHandler) },
	} {
		if err := open(); err != nil {
			return err
		}
	}
	return nil
}

// openGRPC opens the port for checks.
func (s *Server) openGRPC(registry *prometheus.Registry) error {
	l, err := listen("grpc", s.cfg.Listen.GRPC)
	if err != nil {
		return err
	}
	watches := newStreamEnder()
	options := append(grpcOptions(s.cfg.Listen.MaxConnectionAge.Duration), grpc.StreamInterceptor(watches.interceptor))
	if s.tls != nil {
		options = append(options, grpc.Creds(s.credentials(registry)))
	}
	g := grpc.NewServer(options...)
	s.health = health.NewServer()
	s.setHealth(healthpb.HealthCheckResponse_NOT_SERVING, alive, deciding)
	healthpb.RegisterHealthServer(g, s.health)
	extauthz.Register(g, extauthz.NewServer(s.checker, s.decodeOptions, s.log))
	s.ports = append(s.ports, &port{"grpc", l, func() error { return g.Serve(l) }, func(ctx context.Context) {
		watches.end()
		defer context.AfterFunc(ctx, g.Stop)()
		g.GracefulStop()
	}})
	return nil
}

// openHealth opens the port that answers health checks only, if it is configured.
func (s *Server) openHealth() error {
	if s.cfg.Listen.Health == "" {
		return nil
	}
	l, err := listen("health", s.cfg.Listen.Health)
	if err != nil {
		return err
	}
	g := grpc.NewServer(grpc.ConnectionTimeout(handshakeGrace), grpc.MaxRecvMsgSize(4<<10), grpc.MaxConcurrentStreams(16))
	healthpb.RegisterHealthServer(g, s.health)
	s.ports = append(s.ports, &port{"health", l, func() error { return g.Serve(l) }, func(context.Context) { g.Stop() }})
	return nil
}

// openMetrics opens the port for metrics only, if it is configured.
func (s *Server) openMetrics(registry *prometheus.Registry) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return s.openHTTP("metrics", s.cfg.Listen.Metrics, mux)
}

// openEvents opens the port through which others revoke tokens, if it is configured.
func (s *Server) openEvents(o signals.Options) error {
	if s.cfg.Listen.Events == "" {
		return nil
	}
	o.MaxLifetime, o.Refused = s.revocationTTL(), s.metrics.SignalRefused
	return s.openHTTP("events", s.cfg.Listen.Events, signals.Handler(s.tokens, s.revocations, o, s.log))
}

// openHTTP opens a port for HTTP, if it has an address. No client can hold it up for long.
func (s *Server) openHTTP(name, address string, handler http.Handler) error {
	if address == "" {
		return nil
	}
	l, err := listen(name, address)
	if err != nil {
		return err
	}
	h := &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	serve := func() error {
		if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
	s.ports = append(s.ports, &port{name, l, serve, func(ctx context.Context) {
		if h.Shutdown(ctx) != nil {
			_ = h.Close()
		}
	}})
	return nil
}

// The services whose health is told: the process, and checks, for which it may be ready later.
var alive, deciding = "", authv3.Authorization_ServiceDesc.ServiceName

func (s *Server) setHealth(status healthpb.HealthCheckResponse_ServingStatus, services ...string) {
	for _, name := range services {
		s.health.SetServingStatus(name, status)
	}
}
