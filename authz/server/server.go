// Package server puts the parts together and gives them a life: New builds everything and listens, Run serves until its
// context ends and then lets go of everything in order.
//
// The life of a server, with what a crash at each point costs:
//
//  1. The database is opened and locked. A second server on the same data directory stops here.
//  2. Policies are compiled, plans and reasons read. Nothing is served without them. Where the configured ones cannot be
//     used, those do that were in force last, which are kept in the data directory. The keys of issuers are fetched beside
//     everything else: their tokens are refused until they are there.
//  3. Revocations are read to the end. Until then the set is stale and everybody is denied.
//  4. The ports are taken. From here on nothing can go wrong that a configuration could cause.
//  5. Checks, administration and revocations from outside are served; health says SERVING. A crash here strands the units
//     of the leases in hand, at most.
//  6. The context ends: health says NOT_SERVING, checks are answered for shutdown.delay, until Envoys ask others; then no
//     more are taken, and those under way are finished, for shutdownGrace at most.
//  7. Leases are given back. A crash before this strands them, a crash after it costs nothing.
//  8. Decisions in the queue are written, and the database is closed.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tollkeeper-authz/tollkeeper/authz"
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
	// shutdownGrace bounds how long checks under way may take at shutdown, and leaseGrace how long the ledger may.
	shutdownGrace = 5 * time.Second
	leaseGrace    = 5 * time.Second
	syncEvery     = time.Second
	pruneEvery    = time.Minute
	forgetEvery   = 10 * time.Minute
)

// Server is a Tollkeeper that listens.
type Server struct {
	cfg     config.Config
	log     *slog.Logger
	version string
	node    quota.NodeID

	clock         *quota.Clock // of the ledger and of leases
	stores        stores
	revocations   *revocation.Set
	pruner        *revocation.Pruner
	dispenser     *dispenser.Dispenser
	tokens        *token.Verifier // nil: no tokens are understood
	rules         *rulebook.Book
	metrics       *telemetry.Metrics
	checker       *check.Checker
	identifier    *apikey.Identifier
	places        check.Sources // in which a key may stand
	tokenPlans    tokenPlans
	decisions     *decisionlog.Log
	closers       []io.Closer // in the order in which they were opened
	decodeOptions extauthz.Options
	word          *admin.Announcement // of where it listens; nil before

	tls     *tlsfiles.Files // nil: there is none
	health  *health.Server
	grpc    *grpc.Server
	admin   *http.Server
	events  *http.Server // nil: nobody else may revoke
	probes  *grpc.Server // nil: health is asked for where checks are
	scrapes *http.Server // nil: metrics are read through admin
	leaving leaving

	grpcL, adminL, eventsL, healthL, metricsL net.Listener
}

// New builds a server and takes its ports. Nothing is left behind if it returns an error.
func New(ctx context.Context, cfg config.Config, version string, log *slog.Logger) (_ *Server, err error) {
	s := &Server{cfg: cfg, log: log, version: version}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	s.node = dispenser.NewNodeID(host)
	p, faults := prepare(&cfg, log)
	if len(faults) > 0 {
		return nil, &faults[0]
	}
	s.tls, s.decodeOptions = p.tls, p.decodeOptions
	s.clock = quota.NewClock(s.clockJumped)
	if s.stores, err = openStores(cfg, p.hasher, s.clock.Now, log); err != nil {
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
	if err := s.openGRPC(registry); err != nil {
		return nil, err
	}
	if err := s.openHealth(); err != nil {
		return nil, err
	}
	if err := s.openMetrics(registry); err != nil {
		return nil, err
	}
	if err := s.openEvents(p.events); err != nil {
		return nil, err
	}
	return s, s.openAdmin(p.hasher, adminToken, registry)
}

// assemble makes the checker and what it needs.
func (s *Server) assemble(ctx context.Context, parts *parts, registry *prometheus.Registry) error {
	shipped, err := rulebook.ShippedReasons(ctx, s.cfg.Policy.Profile)
	if err != nil {
		return fmt.Errorf("shipped policies: %w", err)
	}
	known := make([]authz.Reason, 0, len(shipped))
	for code := range shipped {
		known = append(known, code)
	}
	metrics := telemetry.New(registry, known)
	if err := s.openDecisionLog(); err != nil {
		return err
	}
	s.revocations = revocation.NewSet(s.stores.revocations, s.cfg.Revocation.MaxStaleness.Duration, time.Now)
	s.revocations.AllowSkew(s.cfg.Tokens.Skew.Duration)
	if err := s.revocations.Sync(ctx); err != nil {
		return fmt.Errorf("revocations: %w", err)
	}
	started := time.Now()
	s.pruner = revocation.NewPruner(s.revocations, s.stores.marks, s.recordLife()+revocation.ClockMargin, time.Now,
		func() time.Duration { return time.Since(started) }, s.log)
	keys := apikey.NewIdentifier(s.stores.keys, parts.hasher)
	s.openTokens(ctx, parts.tokens, keys)
	s.dispenser = dispenser.New(s.stores.ledger, s.node, s.clock.Now)
	hintKey, err := readHintKey(s.cfg.DataDir)
	if err != nil {
		return err
	}
	opt := check.Options{
		HintKey: hintKey,
		Timeout: s.cfg.Request.Timeout.Duration,
		DryRun:  s.cfg.Request.DryRun,
		Credentials: check.Sources{
			Headers: s.cfg.Credentials.Headers, Bearer: s.cfg.Credentials.Bearer, Query: s.cfg.Credentials.Query, Cookies: s.cfg.Credentials.Cookies,
		},
		Answers: check.Answers{
			Realm: s.cfg.Answers.Realm, ProblemBase: s.cfg.Answers.ProblemBase, BillingURL: s.cfg.Answers.BillingURL,
			KeepCredentials: s.cfg.Credentials.Keep, KeepTokens: s.cfg.Tokens.Keep,
		},
	}
	if s.tokens != nil {
		opt.Tokens = s.tokens
	}
	s.identifier, s.places = keys, opt.Credentials
	s.checker = check.New(s.identifier, s.revocations, s.dispenser, recorders{s.decisions, metrics, &s.tokenPlans}, opt)
	telemetry.Watch(registry, telemetry.Gauges{
		RevocationAge: s.revocations.Age, RevocationCount: s.revocations.Len, LogDropped: s.decisions.Dropped,
		PruningPaused: func() bool { return s.pruner.Doubt() != "" }, ClockDoubted: func() bool { return s.clock.Doubt() != "" },
		Issuers: s.issuerGauges, Memo: func() telemetry.Memo { return s.rules.Memo() },
	})
	s.metrics = metrics
	s.rules = rulebook.New(rulebook.Options{
		Policy: s.cfg.Policy, DataDir: s.cfg.DataDir, Shipped: shipped, Metrics: metrics, Log: s.log, Use: s.checker.Use, Uses: s.planUses,
	})
	if err = s.rules.Start(ctx); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}

// clockJumped reports what the clock of quotas thinks of the clock of the machine.
func (s *Server) clockJumped(jump time.Duration, believed bool) {
	switch {
	case believed:
		s.log.Warn("the clock is believed: quotas count by it", "jump", jump)
	case jump != 0:
		s.log.Error("the clock jumped: quotas count as if it had not", "jump", jump)
	default:
		s.log.Info("the clock is back")
	}
}

// planUses tells who is on which plan.
func (s *Server) planUses(ctx context.Context) (rulebook.Uses, error) {
	uses, err := countUses(ctx, s.stores.keys, time.Now(), func(k *apikey.Key) bool {
		return s.revocations.Key(k.ID) || s.revocations.Account(k.Account, k.CreatedAt)
	})
	if err != nil {
		return nil, err
	}
	s.tokenPlans.addTo(uses)
	return uses, nil
}

// recorders give each entry to the decision log and to the metrics.
type recorders struct {
	log     *decisionlog.Log
	metrics *telemetry.Metrics
	plans   *tokenPlans
}

func (r recorders) Record(e *check.Entry) {
	r.metrics.Record(e)
	r.plans.Record(e)
	r.log.Record(e)
}

func (s *Server) openDecisionLog() error {
	var w io.Writer
	switch s.cfg.Log.Decisions {
	case "off":
		w = io.Discard
	case "stdout":
		w = os.Stdout
	case "stderr":
		w = os.Stderr
	default:
		f, err := decisionlog.OpenFile(s.cfg.Log.Decisions, s.log)
		if err != nil {
			return fmt.Errorf("log.decisions: %w", err)
		}
		s.closers = append(s.closers, f)
		w = f
	}
	s.decisions = decisionlog.New(w, s.log)
	return nil
}

func (s *Server) openAdmin(hasher apikey.Hasher, adminToken string, registry *prometheus.Registry) error {
	var err error
	if s.adminL, err = listen("listen.admin", s.cfg.Listen.Admin); err != nil {
		return err
	}
	service := &admin.Service{
		Keys: s.stores.keys, Hasher: hasher, Revocations: s.revocations, Revoked: s.stores.revocations,
		Ledger: s.stores.ledger, Dispenser: s.dispenser, Now: time.Now,
		Plans:       func() map[string][]authz.Limit { return s.checker.Rules().Plans },
		Status:      s.wholeStatus,
		Explain:     s.explain,
		Decision:    s.decisions.Find,
		CheckLedger: s.checkLedger, RecordLife: s.recordLife(), Skew: s.cfg.Tokens.Skew.Duration,
	}
	service.PlanUses = s.rules.Plans
	if s.tokens != nil {
		service.Tokens, service.Issuers, service.Signers = s.tokens, s.tokens.Names(), s.tokens.Signers()
	}
	s.admin = s.httpServer(admin.Handler(service, adminToken, s.version, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), s.log))
	s.word, err = announce(s.cfg.DataDir, "http://"+s.AdminAddr())
	return err
}

// GRPCAddr and AdminAddr are where the server listens, and EventsAddr, HealthAddr and MetricsAddr where it may, "" if it
// does not.
func (s *Server) GRPCAddr() string    { return addressOf(s.grpcL) }
func (s *Server) AdminAddr() string   { return addressOf(s.adminL) }
func (s *Server) EventsAddr() string  { return addressOf(s.eventsL) }
func (s *Server) HealthAddr() string  { return addressOf(s.healthL) }
func (s *Server) MetricsAddr() string { return addressOf(s.metricsL) }

func addressOf(l net.Listener) string {
	switch {
	case l == nil:
		return ""
	case l.Addr().Network() == "unix":
		return config.UnixPrefix + l.Addr().String()
	default:
		return l.Addr().String()
	}
}

func (s *Server) status() admin.Status {
	rules := s.checker.Rules()
	out := admin.Status{
		Address: "http://" + s.AdminAddr(), DataDir: absolute(s.cfg.DataDir),
		Version: s.version, Policy: rules.Policy.Revision(), PolicyFault: s.rules.Fault(), ClockFault: s.clock.Doubt(), PruningPaused: s.pruner.Doubt(), Node: string(s.node),
		Revocations: s.revocations.Len(), Plans: make([]string, 0, len(rules.Plans)),
	}
	out.PolicyKept = s.rules.KeptAt()
	for name := range rules.Plans {
		out.Plans = append(out.Plans, name)
	}
	slices.Sort(out.Plans)
	return out
}

// wholeStatus is the status with what may take a while to find.
func (s *Server) wholeStatus(ctx context.Context) admin.Status {
	out := s.status()
	out.MissingPlans = s.rules.MissingPlans(ctx)
	return out
}

// Run serves until ctx ends, and then shuts down in order. It returns nil after an orderly end. It must be called once.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	var serving, loops sync.WaitGroup
	loopCtx, stopLoops := context.WithCancel(context.WithoutCancel(ctx))
	s.startLoops(loopCtx, &loops)
	failed := s.startServing(&serving)
	s.setHealth(healthpb.HealthCheckResponse_SERVING)
	s.log.Info("serving", "grpc", s.GRPCAddr(), "tls", s.tls != nil, "admin", s.AdminAddr(), "events", s.EventsAddr(), "health", s.HealthAddr(),
		"metrics", s.MetricsAddr(), "data_dir", s.cfg.DataDir, "version", s.version, "node", s.node)

	var err error
	select {
	case <-ctx.Done():
		s.log.Info("leaving: health says so, and checks are answered until the delay is over", "delay", s.cfg.Shutdown.Delay.String())
		s.setHealth(healthpb.HealthCheckResponse_NOT_SERVING)
		select {
		case <-time.After(s.cfg.Shutdown.Delay.Duration):
		case err = <-failed:
		}
	case err = <-failed:
		s.setHealth(healthpb.HealthCheckResponse_NOT_SERVING)
	}
	s.log.Info("shutting down")
	s.drain()
	serving.Wait()
	stopLoops()
	loops.Wait()

	returned, cancel := context.WithTimeout(context.Background(), leaseGrace)
	defer cancel()
	if lost := s.dispenser.Close(returned); lost != nil {
		s.log.Error("leases not returned", "error", lost)
	}
	return err
}

// startServing serves every port. The channel says when one could not be served any more.
func (s *Server) startServing(wg *sync.WaitGroup) <-chan error {
	failed := make(chan error, 5)
	for _, g := range []struct {
		name string
		on   *grpc.Server
		at   net.Listener
	}{{"grpc", s.grpc, s.grpcL}, {"health", s.probes, s.healthL}} {
		if g.on == nil {
			continue
		}
		wg.Go(func() {
			if err := g.on.Serve(g.at); err != nil {
				failed <- fmt.Errorf("%s: %w", g.name, err)
			}
		})
	}
	for _, h := range []struct {
		name string
		on   *http.Server
		at   net.Listener
	}{{"admin", s.admin, s.adminL}, {"events", s.events, s.eventsL}, {"metrics", s.scrapes, s.metricsL}} {
		if h.on == nil {
			continue
		}
		wg.Go(func() {
			if err := h.on.Serve(h.at); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("%s: %w", h.name, err)
			}
		})
	}
	return failed
}

// startLoops starts what goes on beside the checks.
func (s *Server) startLoops(ctx context.Context, wg *sync.WaitGroup) {
	wg.Go(func() { tuneGC(ctx) })
	if s.tls != nil {
		wg.Go(func() { every(ctx, tlsPollEvery, s.tls.Poll) })
	}
	wg.Go(func() { every(ctx, dispenser.SweepEvery, func() { s.dispenser.Sweep(ctx) }) })
	wg.Go(func() {
		every(ctx, syncEvery, func() {
			if err := s.revocations.Sync(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("revocations not read", "error", err, "age", s.revocations.Age())
			}
		})
	})
	wg.Go(func() {
		prune := func() {
			if err := s.pruner.Prune(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("expired revocations not forgotten", "error", err)
			}
		}
		prune()
		every(ctx, pruneEvery, prune)
	})
	wg.Go(func() {
		every(ctx, forgetEvery, func() {
			if _, err := s.stores.ledger.Forget(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("counts that are over not forgotten", "error", err)
			}
		})
	})
	wg.Go(func() { s.rules.Run(ctx) })
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // before Run goes on: unheeded, the signal would end the process
	wg.Go(func() {
		defer signal.Stop(hup)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				s.rules.Poke()
				s.decisions.Reopen()
			}
		}
	})
}

func every(ctx context.Context, d time.Duration, f func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			f()
		}
	}
}

// drain lets calls under way finish, for a while. Probes are answered until the last.
func (s *Server) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range []*http.Server{s.admin, s.events, s.scrapes} {
		if h == nil {
			continue
		}
		wg.Go(func() {
			if h.Shutdown(ctx) != nil {
				_ = h.Close()
			}
		})
	}
	wg.Go(func() {
		s.leaving.begin()
		stop := context.AfterFunc(ctx, s.grpc.Stop)
		defer stop()
		s.grpc.GracefulStop()
	})
	wg.Wait()
	if s.probes != nil {
		s.probes.Stop()
	}
}

func (s *Server) setHealth(status healthpb.HealthCheckResponse_ServingStatus) {
	s.health.SetServingStatus("", status)
	s.health.SetServingStatus(authv3.Authorization_ServiceDesc.ServiceName, status)
}

// close lets go of everything that New took, in the opposite order.
func (s *Server) close() {
	for _, l := range []net.Listener{s.grpcL, s.adminL, s.eventsL, s.healthL, s.metricsL} {
		if l != nil {
			_ = l.Close()
		}
	}
	if s.decisions != nil {
		s.decisions.Close()
	}
	if s.word != nil { // before the lock on the data directory goes
		_ = s.word.Close()
	}
	for _, c := range slices.Backward(s.closers) {
		if err := c.Close(); err != nil {
			s.log.Error("close", "error", err)
		}
	}
}
