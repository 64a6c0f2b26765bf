package postgres

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
)

// fate is what ledgers believe of their server.
type fate struct {
	timeline, system atomic.Int64
	safe             atomic.Bool
	back             atomic.Int64 // how far the log has gone back
}

func (f *fate) rule(s *Ledger) *Ledger {
	s.alter = func(t *state) {
		t.system, t.timeline = fmt.Sprint(f.system.Load()), fmt.Sprint(f.timeline.Load())
		t.position, t.safe = t.position-f.back.Load(), f.safe.Load()
	}
	return s
}

// restated renews the session of a node that has told all, and returns its number.
func restated(t *testing.T, s *Ledger, node quota.NodeID) uint64 {
	t.Helper()
	session := renew(t, s, node)
	if _, err := s.Renew(t.Context(), node, quota.Standing{Restated: session.Number}); err != nil {
		t.Fatal(err)
	}
	return session.Number
}

// Whether the ledger waits a term after a failover, or only until the nodes that it knows have told all.
func TestLedger_Failover(t *testing.T) {
	for name, c := range map[string]struct {
		safe  bool
		fail  func(*fate)
		fresh bool // a node that was not there before is the first to notice
		waits bool // for a term
		same  bool // nothing is noticed
	}{
		"safe standby":                     {safe: true, fail: func(f *fate) { f.timeline.Add(1) }},
		"standby that may lack commits":    {fail: func(f *fate) { f.timeline.Add(1) }, waits: true},
		"safe standby that lacks commits":  {safe: true, fail: func(f *fate) { f.timeline.Add(1); f.back.Store(1 << 30) }, waits: true},
		"older copy in the same place":     {safe: true, fail: func(f *fate) { f.back.Store(1 << 30) }, waits: true},
		"dump in another system":           {safe: true, fail: func(f *fate) { f.system.Add(1) }, waits: true},
		"safe standby, seen by a new node": {safe: true, fail: func(f *fate) { f.timeline.Add(1) }, fresh: true, waits: true},
		"same server":                      {fail: func(*fate) {}, same: true},
	} {
		t.Run(name, func(t *testing.T) {
			address, clock, l := migrated(t), quotatest.NewClock(), hourly(100)
			var f fate
			f.safe.Store(c.safe)
			s := f.rule(ledgerOf(t, Options{URL: address, Now: clock.Now}))
			first := renew(t, s, "a").Number
			leases(t, s, leaseFor("a", "h", 1, l, 5))
			c.fail(&f)
			b := s
			if c.fresh {
				b = f.rule(ledgerOf(t, Options{URL: address, Now: clock.Now}))
			}
			got := leases(t, b, leaseFor("b", "h", 2, l, 5))
			if got.Withheld == c.same || (got.Granted == 0) == c.same {
				t.Fatalf("after the failover: %+v", got)
			}
			if c.same {
				return
			}
			if number := restated(t, s, "a"); number <= first {
				t.Errorf("session %d goes on", number)
			}
			if got := leases(t, s, leaseFor("a", "h", 3, l, 5)); got.Withheld != c.waits || (got.Granted == 0) != c.waits {
				t.Errorf("when the node has told all: %+v", got)
			}
			clock.Advance(quota.SessionTerm - time.Second)
			restated(t, s, "a")
			clock.Advance(time.Second)
			if got := leases(t, b, leaseFor("a", "h", 4, l, 5)); got.Withheld || got.Granted != 5 {
				t.Errorf("after a term: %+v", got)
			}
			if number := restated(t, s, "a"); number != restated(t, s, "a") {
				t.Errorf("sessions begin again and again")
			}
		})
	}
}

// TestLedger_LostWithoutNotice restores a copy of the tables in a server that seems to be the same. Only the requests of nodes show it, and
// before they are answered all sessions end.
func TestLedger_LostWithoutNotice(t *testing.T) {
	for name, restates := range map[string]bool{"restated": true, "refused": false} {
		t.Run(name, func(t *testing.T) {
			address, l := migrated(t), hourly(100)
			s := ledgerOf(t, Options{URL: address})
			first := renew(t, s, "a").Number
			renew(t, s, "b")
			ask := leaseFor("a", "h", 1, l, 5)
			leases(t, s, ask)
			restore := copyTables(t, address)
			ask.Seq, ask.Last = 2, 1
			leases(t, s, ask)
			restore()
			ask.Seq, ask.Last = 3, 2
			if restates {
				ask.Held, ask.Known = quota.PeriodAt(&l, time.Now()), &quota.Holding{Units: 10}
			}
			answers, err := s.Lease(t.Context(), []quota.LeaseRequest{ask.Request(), leaseFor("a", "other", 4, l, 5).Request()})
			if err != nil || !answers[0].Lost || (answers[0].Err == nil) != restates || answers[1].Err != nil || !answers[1].Parts[0].Withheld {
				t.Fatalf("%+v, %v", answers, err)
			}
			if got := leases(t, s, leaseFor("b", "h", 5, l, 5)); got.Granted != 0 || !got.Withheld || restates && got.Counted != 10 {
				t.Errorf("another node is granted %+v", got)
			}
			if number := renew(t, s, "a").Number; number <= first {
				t.Errorf("session %d goes on", number)
			}
		})
	}
}
