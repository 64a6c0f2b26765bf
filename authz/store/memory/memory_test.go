package memory_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey/apikeytest"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation/revocationtest"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

func TestKeys_Contract(t *testing.T) {
	apikeytest.Run(t, func(*testing.T, func() time.Time) apikey.Store { return memory.NewKeys() })
}

func TestRevocations_Contract(t *testing.T) {
	revocationtest.Run(t, func(*testing.T, func() time.Time) revocation.Store { return memory.NewRevocations() })
}

func TestLedger_Contract(t *testing.T) {
	quotatest.Run(t, func(t *testing.T, now func() time.Time) quota.Ledger {
		l := memory.NewLedger(now)
		t.Cleanup(func() {
			if err := l.Check(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return l
	})
}

func TestLedger_LostCommits(t *testing.T) {
	quotatest.RunLost(t, func(_ *testing.T, now func() time.Time) quotatest.Standby {
		l := memory.NewLedger(now)
		n := 0
		return quotatest.Standby{Ledger: l, Copy: func() func() {
			takeOver := l.Copy()
			return func() {
				n++
				takeOver(strconv.Itoa(n))
			}
		}}
	})
}
