package faulttest

import (
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres"
)

// TestClock moves the clock of the database alone, there and back, by less than a session and by more than a period. A jump by hours
// has the ledger forget what nodes asked last, which looks like lost commits: then it may grant nothing for the term of a session.
func TestClock(t *testing.T) {
	t.Parallel()
	_, url := startServer(t)
	r := newRig(t)
	r.start(postgres.Options{URL: url, Now: r.databaseNow})
	for _, d := range []time.Duration{
		30 * time.Second, -30 * time.Second, -30 * time.Second, 30 * time.Second, 2 * time.Minute, -2 * time.Minute,
		2 * time.Hour, -2 * time.Hour, 40 * 24 * time.Hour, -40 * 24 * time.Hour,
	} {
		r.databaseMoved.Add(int64(d))
		r.phase("")
		r.sweep()
		if d.Abs() > time.Hour {
			for range quota.SessionTerm/dispenser.SweepEvery + 1 {
				r.move(dispenser.SweepEvery)
			}
		}
		took := r.recovered()
		r.phase("clock moved by " + d.String() + ", until all served")
		if took > 10*time.Second {
			t.Errorf("after a move by %v all serve again after %v", d, took)
		}
	}
	r.settle(false)
}

// databaseNow is the clock of the database.
func (r *rig) databaseNow() time.Time { return r.now().Add(time.Duration(r.databaseMoved.Load())) }
