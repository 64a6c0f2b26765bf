package server

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/decisionlog"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/rulebook"
	"github.com/tollkeeper-authz/tollkeeper/authz/telemetry"
)

// assemble makes the checker and everything that it asks.
func (s *Server) assemble(ctx context.Context, p *parts, registry *prometheus.Registry) error {
	shipped, err := rulebook.ShippedReasons(ctx, s.cfg.Policy.Profile)
	if err != nil {
		return fmt.Errorf("shipped policies: %w", err)
	}
	s.metrics = telemetry.New(registry, slices.Collect(maps.Keys(shipped)))
	if err := s.openDecisionLog(); err != nil {
		return err
	}
	if err := s.openRevocations(ctx); err != nil {
		return err
	}
	s.identifier = apikey.NewIdentifier(s.stores.keys, p.hasher)
	s.openTokens(ctx, p.tokens)
	s.dispenser = dispenser.New(s.stores.ledger, s.node, s.clock.Now)
	if err := s.makeChecker(); err != nil {
		return err
	}
	s.rules = rulebook.New(rulebook.Options{
		Policy: s.cfg.Policy, DataDir: s.cfg.DataDir, Shipped: shipped, Metrics: s.metrics, Log: s.log, Use: s.checker.Use, Uses: s.planUses,
	})
	telemetry.Watch(registry, telemetry.Gauges{
		RevocationAge: s.revocations.Age, RevocationCount: s.revocations.Len, LogDropped: s.decisions.Dropped,
		PruningPaused: func() bool { return s.pruner.Doubt() != "" }, ClockDoubted: func() bool { return s.clock.Doubt() != "" },
		Issuers: s.issuerGauges, Memo: s.rules.Memo, Evaluator: s.evaluator, LogBytes: s.stores.logBytes(),
		Leases: func() telemetry.Leases { return telemetry.Leases(s.dispenser.Held()) },
	})
	if err := s.rules.Start(ctx); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}

// evaluator says what decides, for the metrics.
func (s *Server) evaluator() telemetry.Evaluator {
	e, ok := s.rules.Evaluator()
	if !ok {
		return telemetry.Evaluator{}
	}
	return telemetry.Evaluator{Name: e.Name(), Reason: string(e.Reason)}
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

// openRevocations reads all revocations. If a shared store is away, it takes those of the local copy, and without one that is recent
// the server starts all the same: the set is stale, and checks are denied until the store is back.
func (s *Server) openRevocations(ctx context.Context) error {
	s.revocations = revocation.NewSet(s.stores.revocations, s.cfg.Revocation.MaxStaleness.Duration, time.Now)
	s.revocations.AllowSkew(s.cfg.Tokens.Skew.Duration)
	switch err := s.revocations.Sync(ctx); {
	case err == nil:
	case s.cfg.Store.Kind != config.StorePostgres || ctx.Err() != nil:
		return fmt.Errorf("revocations: %w", err)
	default:
		if copyErr := s.revocations.Restore(); copyErr != nil {
			s.log.Error("no revocations are known: checks are denied until the store is back", "error", err, "copy", copyErr)
			break
		}
		s.log.Warn("the revocations are those of the local copy until the store is back", "error", err, "age", s.revocations.Age())
	}
	started := time.Now()
	s.pruner = revocation.NewPruner(s.revocations, s.stores.marks, s.revocationTTL()+revocation.ClockMargin, time.Now,
		func() time.Duration { return time.Since(started) }, s.log)
	return nil
}

func (s *Server) makeChecker() error {
	hintKey, err := readHintKey(s.cfg.DataDir)
	if err != nil {
		return err
	}
	c := &s.cfg.Credentials
	s.keySources = check.Sources{Headers: c.Headers, Bearer: c.Bearer, Query: c.Query, Cookies: c.Cookies}
	opt := check.Options{
		HintKey: hintKey, Timeout: s.cfg.Request.Timeout.Duration, DryRun: s.cfg.Request.DryRun, Credentials: s.keySources,
		Answers: check.Answers{
			Realm: s.cfg.Answers.Realm, ProblemBase: s.cfg.Answers.ProblemBase, BillingURL: s.cfg.Answers.BillingURL,
			Omit:            check.AllBut(s.cfg.Answers.Metadata, s.cfg.Answers.Identity),
			KeepCredentials: c.Keep, KeepTokens: s.cfg.Tokens.Keep,
		},
	}
	if s.tokens != nil {
		opt.Tokens = s.tokens
	}
	s.checker = check.New(s.identifier, s.revocations, s.dispenser, recorders{s.decisions, s.metrics, &s.tokenPlans}, opt)
	return nil
}

// recorders pass each entry to everything that records decisions.
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

// planUses tells who is on which plan.
func (s *Server) planUses(ctx context.Context) (rulebook.Uses, error) {
	uses, err := countUses(ctx, s.stores.keys, time.Now(), func(u apikey.PlanUse) bool { return s.isRevoked(u.Key, u.Account, u.CreatedAt) })
	if err != nil {
		return nil, err
	}
	s.tokenPlans.addTo(uses)
	return uses, nil
}

// isRevoked reports whether a key is revoked, which was made at that time.
func (s *Server) isRevoked(key, account string, created time.Time) bool {
	return s.revocations.Key(key) || s.revocations.Account(account, created)
}

// clockJumped logs what the clock of quotas makes of the clock of the machine.
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
