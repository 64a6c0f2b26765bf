package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/decisionlog"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/extauthz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/rulebook"
	"github.com/tollkeeper-authz/tollkeeper/authz/telemetry"
	"github.com/tollkeeper-authz/tollkeeper/authz/tlsfiles"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
)

const (
	// shutdownGrace bounds how long checks under way may take at shutdown.
	shutdownGrace = 5 * time.Second
	// leaseGrace bounds how long the return of leases may take at shutdown: a million holders take about that long.
	leaseGrace = 10 * time.Second
)

// Server is a Tollkeeper that listens. Make one with New.
type Server struct {
	cfg     config.Config
	log     *slog.Logger
	version string
	node    quota.NodeID

	clock      *quota.Clock // of the ledger and of leases
	stores     stores
	closers    []io.Closer // in the order in which they were opened
	metrics    *telemetry.Metrics
	decisions  *decisionlog.Log
	tokenPlans tokenPlans

	revocations *revocation.Set
	pruner      *revocation.Pruner
	identifier  *apikey.Identifier
	tokens      *token.Verifier // nil: no tokens are understood
	dispenser   *dispenser.Dispenser
	checker     *check.Checker
	rules       *rulebook.Book

	decodeOptions extauthz.Options
	keySources    check.Sources
	tls           *tlsfiles.Files // nil: no TLS is configured
	health        *health.Server
	ports         ports
	announcement  *admin.Announcement // nil until it listens
}

// New builds a server and opens its ports. If it returns an error, everything that it opened is closed again.
func New(ctx context.Context, cfg config.Config, version string, log *slog.Logger) (_ *Server, err error) {
	s := &Server{cfg: cfg, log: log, version: version, node: newNodeID()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	p, faults := prepare(&cfg, log)
	if len(faults) > 0 {
		return nil, &faults[0]
	}
	s.tls, s.decodeOptions = p.tls, p.decodeOptions
	s.clock = quota.NewClock(s.clockJumped)
	if s.stores, err = openStores(ctx, cfg, p.hasher, s.clock.Now, log); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, s.stores.closer)
	adminToken, err := admin.Token(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("admin token: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := s.assemble(ctx, &p, registry); err != nil {
		return nil, err
	}
	if err := s.openPorts(registry, p.events, s.adminHandler(p.hasher, adminToken, registry)); err != nil {
		return nil, err
	}
	if s.announcement, err = announce(cfg.DataDir, "http://"+s.AdminAddr()); err != nil {
		return nil, err
	}
	return s, s.replace() // no other server runs on the directory
}

// nodeFile is the file in the data directory that names the node which runs there, or ran last.
const nodeFile = "node"

// replace says that this node runs in the place of the last one on the directory. That one is dead, and others wait for it otherwise
// until its session ends.
func (s *Server) replace() error {
	path := filepath.Join(s.cfg.DataDir, nodeFile)
	dead, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data_dir: %w", err)
	}
	s.dispenser.Replace(quota.NodeID(strings.TrimSpace(string(dead))))
	if err := os.WriteFile(path, []byte(s.node+"\n"), 0o600); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	return nil
}

func newNodeID() quota.NodeID {
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	return dispenser.NewNodeID(host)
}

// GRPCAddr returns where Envoy's checks are answered.
func (s *Server) GRPCAddr() string { return s.ports.address("grpc") }

// AdminAddr returns where the admin API is.
func (s *Server) AdminAddr() string { return s.ports.address("admin") }

// EventsAddr returns where others revoke tokens, "" for nowhere.
func (s *Server) EventsAddr() string { return s.ports.address("events") }

// HealthAddr returns where health alone is answered, "" for nowhere.
func (s *Server) HealthAddr() string { return s.ports.address("health") }

// MetricsAddr returns where metrics alone are read, "" for nowhere.
func (s *Server) MetricsAddr() string { return s.ports.address("metrics") }

// Run serves until ctx ends, and then shuts down in order. It returns nil unless a port fails. It must be called once.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	var serving, loops sync.WaitGroup
	loopCtx, stopLoops := context.WithCancel(context.WithoutCancel(ctx))
	s.startLoops(loopCtx, &loops)
	failed := s.ports.serve(&serving)
	s.setHealth(healthpb.HealthCheckResponse_SERVING, alive)
	s.log.Info("serving", "grpc", s.GRPCAddr(), "tls", s.tls != nil, "admin", s.AdminAddr(), "events", s.EventsAddr(), "health", s.HealthAddr(),
		"metrics", s.MetricsAddr(), "data_dir", s.cfg.DataDir, "version", s.version, "node", s.node)

	err := s.wait(ctx, failed)
	s.log.Info("shutting down")
	s.drain()
	serving.Wait()
	stopLoops()
	loops.Wait()
	s.returnLeases()
	return err
}

// wait waits until ctx ends and the shutdown delay is over, or until a port fails. Health says SERVING from when the node can decide
// until then.
func (s *Server) wait(ctx context.Context, failed <-chan error) error {
	look := time.NewTicker(readyEvery)
	defer look.Stop()
	for ready := false; ctx.Err() == nil; {
		if !ready && s.informed() {
			s.setHealth(healthpb.HealthCheckResponse_SERVING, deciding)
			s.log.Info("ready")
			ready = true
			look.Stop()
		}
		select {
		case err := <-failed:
			s.setHealth(healthpb.HealthCheckResponse_NOT_SERVING, alive, deciding)
			return err
		case <-look.C:
		case <-ctx.Done():
		}
	}
	s.log.Info("leaving: health says so, and checks are answered until the delay is over", "delay", s.cfg.Shutdown.Delay.String())
	s.setHealth(healthpb.HealthCheckResponse_NOT_SERVING, alive, deciding)
	select {
	case err := <-failed:
		return err
	case <-time.After(s.cfg.Shutdown.Delay.Duration):
		return nil
	}
}

// readyEvery is how often a node that lacks keys or revocations looks whether it has them.
const readyEvery = 50 * time.Millisecond

// informed reports whether the node knows all keys and revocations. A node that starts while the database is away could only deny, so
// it must not take the place of one that knows more. Once it was ready it stays so: if health depended on the database, all nodes
// would leave at once, with the leases that they could still serve.
func (s *Server) informed() bool {
	old := max(s.cfg.Revocation.MaxStaleness.Duration, 2*syncEvery) // a shorter one denies between two syncs, with all that there is
	if keys, ok := s.stores.keys.(interface{ Age() (time.Duration, bool) }); ok {
		if age, read := keys.Age(); !read || age > old {
			return false
		}
	}
	return s.revocations.Age() <= old
}

func (s *Server) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	s.ports.drain(ctx)
}

func (s *Server) returnLeases() {
	ctx, cancel := context.WithTimeout(context.Background(), leaseGrace)
	defer cancel()
	if err := s.dispenser.Close(ctx); err != nil {
		s.log.Error("leases not returned", "error", err)
	}
}

// close closes everything that New opened, in the opposite order.
func (s *Server) close() {
	s.ports.close()
	if s.decisions != nil {
		s.decisions.Close()
	}
	if s.announcement != nil { // before the lock on the data directory is released
		_ = s.announcement.Close()
	}
	for _, c := range slices.Backward(s.closers) {
		if err := c.Close(); err != nil {
			s.log.Error("close", "error", err)
		}
	}
}
