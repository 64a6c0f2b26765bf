package server

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/rulebook"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// planSource lists accounts, and keys that have a plan of their own: a store, or a data file that no server has open.
type planSource interface {
	OnPlans(ctx context.Context, each func(apikey.PlanUse) error) error
}

// maxExamples is how many of the users of a plan are named.
const maxExamples = 3

// countUses counts who is on which plan. Keys that can never work again do not count, or their plans could never be removed.
// Revoked tells which keys are revoked; it may be nil.
func countUses(ctx context.Context, source planSource, now time.Time, revoked func(apikey.PlanUse) bool) (rulebook.Uses, error) {
	uses := make(rulebook.Uses)
	err := source.OnPlans(ctx, func(on apikey.PlanUse) error {
		over := !on.Ends.IsZero() && !now.Before(on.Ends)
		switch {
		case on.Key == "":
			u := uses.Of(on.Plan)
			u.Accounts++
			u.AccountIDs = addExample(u.AccountIDs, on.Account)
		case !over && (revoked == nil || !revoked(on)):
			u := uses.Of(on.Plan)
			u.Keys++
			u.KeyIDs = addExample(u.KeyIDs, on.Key)
		}
		return nil
	})
	return uses, err
}

// addExample keeps the first few ids in sorted order, so that the same fault has the same text each time.
func addExample(list []string, id string) []string {
	if i, found := slices.BinarySearch(list, id); !found && i < maxExamples {
		list = slices.Insert(list, i, id)
	}
	return list[:min(len(list), maxExamples)]
}

// PlansOf tells who is on which plan by the data file in a directory on which no server runs. The error is ErrRunning while
// one does.
func PlansOf(ctx context.Context, dataDir string) (*admin.Plans, error) {
	file, err := bolt.Inspect(filepath.Join(dataDir, databaseFile))
	switch {
	case errors.Is(err, bolt.ErrInUse):
		return nil, ErrRunning
	case err != nil:
		return nil, err
	}
	defer func() { _ = file.Close() }()
	uses, err := countUses(ctx, file, time.Now(), nil)
	if err != nil {
		return nil, err
	}
	return &admin.Plans{Plans: uses.List()}, nil
}

// tokenPlans collects the plans that tokens named since the server started: no store knows them. The number is bounded, in
// case a trusted issuer goes wrong and names a new plan in every token. The zero value is ready for use, and its methods may
// be called concurrently.
type tokenPlans struct {
	seen sync.Map // plan -> struct{}

	mu sync.Mutex
	n  int // entries of seen
}

const maxTokenPlans = 1000

// Record notes the plan of a valid token.
func (t *tokenPlans) Record(e *check.Entry) {
	token := &e.Facts.Token
	if token.Plan == "" || token.Status != authz.TokenValid {
		return
	}
	if _, ok := t.seen.Load(token.Plan); ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n < maxTokenPlans {
		t.n++
		t.seen.Store(strings.Clone(token.Plan), struct{}{})
	}
}

func (t *tokenPlans) addTo(uses rulebook.Uses) {
	t.seen.Range(func(plan, _ any) bool {
		uses.Of(plan.(string)).Tokens = true
		return true
	})
}
