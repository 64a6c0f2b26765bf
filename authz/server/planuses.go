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
	OnPlans(ctx context.Context, each func(*apikey.Account, *apikey.Key) error) error
}

// maxExamples is how many of the users of a plan are named.
const maxExamples = 3

// countUses counts who is on which plan. Keys that can never work again do not count, or their plans could never be removed.
// Revoked tells which keys are revoked; it may be nil.
func countUses(ctx context.Context, source planSource, now time.Time, revoked func(*apikey.Key) bool) (rulebook.Uses, error) {
	uses := make(rulebook.Uses)
	err := source.OnPlans(ctx, func(a *apikey.Account, k *apikey.Key) error {
		switch {
		case a != nil && a.Plan != "":
			u := uses.Of(a.Plan)
			u.Accounts++
			u.AccountIDs = addExample(u.AccountIDs, a.ID)
		case k != nil && !isOver(k, now) && (revoked == nil || !revoked(k)):
			u := uses.Of(k.Plan)
			u.Keys++
			u.KeyIDs = addExample(u.KeyIDs, k.ID)
		}
		return nil
	})
	return uses, err
}

func isOver(k *apikey.Key, now time.Time) bool {
	status := k.StatusAt(now)
	return status == authz.KeyExpired || status == authz.KeyRotated
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
