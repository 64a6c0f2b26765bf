package dispenser_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

var acme = authz.Holder{Key: "key_1", Account: "acme"}

func daily(units int64) authz.Limit {
	return authz.Limit{Name: "daily", Units: units, Unit: authz.UnitRequests, Window: authz.WindowDay, Per: authz.PerAccount}
}

// parsed is the limit as ParsePlans would make it.
func parsed(t testing.TB, l authz.Limit) authz.Limit {
	t.Helper()
	plans, faults := quota.ParsePlans(map[string]any{"p": map[string]any{"limits": map[string]any{
		l.Name: map[string]any{"units": l.Units, "window": l.Window, "per": l.Per, "unit": l.Unit},
	}}})
	if faults != nil {
		t.Fatal(faults)
	}
	return plans["p"][0]
}

func credits() authz.Limit {
	return authz.Limit{Name: "credits", Unit: authz.UnitRequests, Window: authz.WindowNone, Per: authz.PerAccount}
}

// balance is the ledger's balance after every node has reported. It checks the invariant.
func balance(t *testing.T, l quota.Ledger, limit authz.Limit, nodes ...*dispenser.Dispenser) quota.Balance {
	t.Helper()
	b := quota.BucketOf(&limit, acme)
	for _, d := range nodes {
		if err := d.Report(t.Context(), b, &limit); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.Balance(t.Context(), b, limit)
	if err != nil {
		t.Fatal(err)
	}
	held := got.Stranded
	for _, n := range got.Outstanding {
		held += n
	}
	if got.Granted != got.Spent+got.Returned+held {
		t.Errorf("granted %d is not spent %d + returned %d + held %d", got.Granted, got.Spent, got.Returned, held)
	}
	if got.Granted-got.Returned > got.Allowance+got.Forgiven {
		t.Errorf("over-granted: %+v", got)
	}
	return got
}

// reserve returns nil if too few units were left.
func reserve(t *testing.T, d *dispenser.Dispenser, c authz.Charge, limits ...authz.Limit) (*authz.Reservation, []authz.QuotaFact) {
	t.Helper()
	r, facts := new(authz.Reservation), make([]authz.QuotaFact, len(limits))
	if !d.Reserve(t.Context(), acme, limits, c, facts, r) {
		return nil, facts
	}
	return r, facts
}

// takeAll reserves one unit after the other until one is refused, and returns how many it got.
func takeAll(t *testing.T, d *dispenser.Dispenser, l authz.Limit) (n int64) {
	t.Helper()
	for ; ; n++ {
		if r, _ := reserve(t, d, authz.Charge{l.Name: 1}, l); r == nil {
			return n
		}
	}
}

// takeSome reserves that many units one after the other and fails the test if one is refused.
func takeSome(t *testing.T, d *dispenser.Dispenser, l authz.Limit, n int) {
	t.Helper()
	for i := range n {
		if r, facts := reserve(t, d, authz.Charge{l.Name: 1}, l); r == nil {
			t.Fatalf("refused after %d of %d: %+v", i, n, facts)
		}
	}
}

// eachStore runs a test over the ledger of every store: what nodes do with one must not depend on which it is.
func eachStore(t *testing.T, test func(t *testing.T, ledger quota.Ledger)) {
	t.Run("memory", func(t *testing.T) { test(t, memory.NewLedger(time.Now)) })
	t.Run("bolt", func(t *testing.T) {
		db, err := bolt.Open(filepath.Join(t.TempDir(), "tollkeeper.db"), bolt.Options{Pepper: "none"})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := db.Check(t.Context()); err != nil {
				t.Error(err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}()
		test(t, db.Ledger())
	})
}

// flaky is a ledger that can be out of reach, and loses calls on their way there or back.
type flaky struct {
	quota.Ledger
	down  atomic.Bool
	loses atomic.Int64 // one in so many; 0 none
	calls atomic.Int64
}

var errLost = errors.New("the call was lost")

// through makes a call unless it is lost.
func (f *flaky) through(call func() error) error {
	f.calls.Add(1)
	n := f.loses.Load()
	lost := func() bool { return n > 0 && rand.Int64N(n) == 0 }
	if f.down.Load() || n > 1 && lost() {
		return errLost
	}
	if err := call(); err != nil {
		return err
	}
	if lost() {
		return errLost
	}
	return nil
}

func (f *flaky) Lease(ctx context.Context, rs []quota.LeaseRequest) (answers []quota.Answer, err error) {
	err = f.through(func() error {
		answers, err = f.Ledger.Lease(ctx, rs)
		return err
	})
	return answers, err
}

func (f *flaky) Renew(ctx context.Context, node quota.NodeID, s quota.Standing) (quota.Session, error) {
	if f.down.Load() {
		return quota.Session{}, errLost
	}
	return f.Ledger.Renew(ctx, node, s)
}

// slow is a ledger that takes a moment to answer, in which other requests arrive.
type slow struct{ quota.Ledger }

const slowCall = time.Millisecond

func (s *slow) Lease(ctx context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	time.Sleep(slowCall)
	return s.Ledger.Lease(ctx, rs)
}
