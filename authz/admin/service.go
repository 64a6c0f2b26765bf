package admin

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// Service does what the API offers, without HTTP. Its methods may be called concurrently.
type Service struct {
	Keys   apikey.Store
	Hasher apikey.Hasher
	// Revocations revokes and answers what is revoked; Revoked lists the records.
	Revocations *revocation.Set
	Revoked     revocation.Store
	Tokens      Tokens   // nil: no tokens are understood
	Issuers     []string // names of the issuers of tokens
	Signers     []string // those of Issuers whose signing keys we know
	// RevocationTTL is how long a revocation of tokens issued until now must be kept.
	RevocationTTL time.Duration
	// Skew is how far the clocks of issuers may be ahead of ours.
	Skew   time.Duration
	Ledger quota.Ledger
	// Dispenser has this node report what it spent of a bucket to the ledger, and tells the state of rates.
	Dispenser interface {
		Report(ctx context.Context, b quota.Bucket, l *authz.Limit) error
		Rate(ctx context.Context, h authz.Holder, l *authz.Limit) (authz.QuotaFact, error)
	}
	// Plans returns the plans in force.
	Plans func() map[string][]authz.Limit
	// PlanUses tells who is on which plan. It reads every account and key.
	PlanUses func(ctx context.Context) (Plans, error)
	// Status returns the state of the server.
	Status func(ctx context.Context) Status
	// Explain decides a described request without charging for it.
	Explain func(ctx context.Context, q Question) (check.Explanation, error)
	// Decision finds a recent decision by its id or by the x-request-id of its request.
	Decision func(ctx context.Context, id string) (Decision, bool)
	// CheckLedger checks the data file. The error says why the file could not be read.
	CheckLedger func(ctx context.Context) (doctor.Report, error)
	// Backup returns what writes a backup of the data file. The error says why there is none.
	Backup func() (func(ctx context.Context, w io.Writer) error, error)
	Now    func() time.Time
}

// defaultEnvironment is the environment of keys that name none.
const defaultEnvironment = "live"

// checkPlan refuses a plan that does not exist. If the policies have no plans at all, every name is accepted.
func (s *Service) checkPlan(name string) error {
	if _, ok := s.Plans()[name]; ok || name == "" || len(s.Plans()) == 0 {
		return nil
	}
	return authz.Errorf(authz.KindInvalid, "there is no plan %q: the plans are %s", name, s.planNames())
}

func (s *Service) planNames() string {
	return strings.Join(slices.Sorted(maps.Keys(s.Plans())), ", ")
}

func (s *Service) revoke(ctx context.Context, r revocation.Record) (Revoked, error) {
	stored, err := s.Revocations.Revoke(ctx, r)
	if err != nil {
		return Revoked{}, err
	}
	return Revoked{Kind: string(stored.Kind), ID: stored.Value, At: stored.At, Revision: stored.Revision}, nil
}

// viewAll converts a list with view.
func viewAll[T, V any](ctx context.Context, list []*T, view func(context.Context, *T) (V, error)) ([]V, error) {
	out := make([]V, len(list))
	for i := range list {
		var err error
		if out[i], err = view(ctx, list[i]); err != nil {
			return nil, fmt.Errorf("listing: %w", err)
		}
	}
	return out, nil
}
