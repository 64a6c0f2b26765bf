package quota_test

import (
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// TestRoll_SafeServerIsFollowedByOneThatIsNot is a failover to a synchronous standby, which has no standby itself. Nothing was
// lost, so grants go on when the nodes have restated what they hold; and a failover from there may lose something.
func TestRoll_SafeServerIsFollowedByOneThatIsNot(t *testing.T) {
	now := time.Date(2024, 5, 15, 12, 0, 0, 0, time.UTC)
	var r quota.Roll
	r.Notice("1", true, now)
	r.Renew("a", quota.Standing{}, now)
	renew := func(s quota.Standing) {
		t.Helper()
		r.Notice("2", false, now)
		r.Renew("a", s, now)
	}
	renew(quota.Standing{})
	if !r.Withholds(now) {
		t.Fatal("another server is trusted at once")
	}
	renew(quota.Standing{Restated: r.Number})
	for range 3 {
		if r.Withholds(now) {
			t.Fatal("the ledger withholds although nothing was lost, and all was told")
		}
		renew(quota.Standing{Restated: r.Number})
	}
	r.Notice("3", false, now)
	r.Renew("a", quota.Standing{Restated: r.Number}, now)
	if !r.Withholds(now) {
		t.Error("commits of the second server may be lost, and the ledger does not withhold")
	}
	if now = now.Add(quota.SessionTerm); r.Withholds(now) {
		t.Error("the ledger withholds for longer than a term")
	}
}
