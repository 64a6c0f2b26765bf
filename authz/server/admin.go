package server

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

func (s *Server) adminHandler(hasher apikey.Hasher, token string, registry *prometheus.Registry) http.Handler {
	service := &admin.Service{
		Keys: s.stores.keys, Hasher: hasher, Revocations: s.revocations, Revoked: s.stores.revocations,
		Ledger: s.stores.ledger, Dispenser: s.dispenser, Now: time.Now,
		Plans:         func() map[string][]authz.Limit { return s.checker.Rules().Plans },
		PlanUses:      s.rules.Plans,
		Status:        s.status,
		Explain:       s.explain,
		Decision:      s.decisions.Find,
		CheckLedger:   s.checkLedger,
		Backup:        s.backup,
		RevocationTTL: s.revocationTTL(), Skew: s.cfg.Tokens.Skew.Duration,
	}
	if s.tokens != nil {
		service.Tokens, service.Issuers, service.Signers = s.tokens, s.tokens.Names(), s.tokens.Signers()
	}
	return admin.Handler(service, token, s.version, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), s.log)
}

// status returns the state of the server. It may ask the store who is on which plan.
func (s *Server) status(ctx context.Context) admin.Status {
	rules := s.checker.Rules()
	plans := slices.AppendSeq(make([]string, 0, len(rules.Plans)), maps.Keys(rules.Plans)) // never nil
	slices.Sort(plans)
	evaluator, _ := s.rules.Evaluator()
	return admin.Status{
		Address: "http://" + s.AdminAddr(), DataDir: absolute(s.cfg.DataDir), Version: s.version, Node: string(s.node),
		Policy: rules.Policy.Revision(), Evaluator: evaluator.String(), PolicyFault: s.rules.Fault(), PolicyKept: s.rules.KeptAt(),
		Plans: plans, MissingPlans: s.rules.MissingPlans(ctx), Routes: s.rules.Routes(),
		ClockFault: s.clock.Doubt(), PruningPaused: s.pruner.Doubt(), Revocations: s.revocations.Len(),
	}
}

// announce writes the address of the admin API where the CLI finds it: into the data directory, and into a file of the user
// who started the server.
func announce(dir, address string) (*admin.Announcement, error) {
	a, err := admin.Announce(dir, address)
	if err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	pointer, err := admin.PointerFile()
	if err != nil {
		return a, nil // a user without a home, as in a container, has to name the data directory to the CLI
	}
	if os.MkdirAll(filepath.Dir(pointer), 0o700) == nil {
		_ = os.WriteFile(pointer, []byte(absolute(dir)+"\n"), 0o600) // a convenience: nothing depends on it
	}
	return a, nil
}

// absolute returns a path that means the same in every working directory.
func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}
