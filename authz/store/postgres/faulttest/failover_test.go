package faulttest

import (
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

// follow starts a standby, over a way to the primary. The URL leads to the one of the two that takes writes.
func follow(t *testing.T, s *pgtest.Server, way, url string) (standby *pgtest.Server, both string) {
	t.Helper()
	standby, err := s.Standby(way)
	must(t, err)
	closed(t, standby)
	return standby, strings.Replace(url, s.Address(), s.Address()+","+standby.Address(), 1)
}

// TestFailover_SynchronousStandby promotes a standby that has every acknowledged commit. The nodes tell what they hold, and grants go on.
func TestFailover_SynchronousStandby(t *testing.T) {
	t.Parallel()
	s, url := startServer(t)
	standby, both := follow(t, s, s.URLOf(pgtest.Superuser, "postgres"), url)
	must(t, s.Synchronous(t.Context()))
	r := newRig(t)
	r.start(postgres.Options{URL: both})
	must(t, s.Kill())
	must(t, standby.Promote(t.Context()))
	r.phase("promotion")
	took := r.recovered()
	t.Logf("all serve again after %v", took.Round(time.Millisecond))
	if took > quota.SessionTerm/2 {
		t.Errorf("the nodes did not believe that nothing was lost")
	}
	r.settle(false)
}

// TestFailover_AsynchronousStandby promotes a standby that lacks commits which were acknowledged. Nothing is granted for the term of a
// session; what the nodes hold and have spent counts again.
func TestFailover_AsynchronousStandby(t *testing.T) {
	t.Parallel()
	s, url := startServer(t)
	way := pgtest.NewProxy(t, s)
	standby, both := follow(t, s, way.URL(s.URLOf(pgtest.Superuser, "postgres")), url)
	r := newRig(t)
	r.start(postgres.Options{URL: both, Now: r.now})
	way.SetDown(true)
	way.Disconnect()
	r.phase("")
	r.await("commits are made that the standby lacks", func() bool {
		return r.count("known ok") > 1000 && r.count("new ok") > 50 && r.count("writes acknowledged") > 20
	})
	must(t, s.Kill())
	r.phase("commits that will be lost")
	must(t, standby.Promote(t.Context()))
	written := r.count("writes acknowledged")
	r.await("the new primary takes writes", func() bool { return r.count("writes acknowledged") > written+4 })
	r.phase("promotion")
	for range quota.SessionTerm / dispenser.SweepEvery {
		if n := r.count("new ok"); n != 0 {
			t.Fatalf("%d grants in the term of a session after commits were lost", n)
		}
		r.move(dispenser.SweepEvery)
	}
	r.phase("withheld")
	r.move(time.Second)
	r.mended()
	r.settle(true)
}

// move moves the clock of all nodes and of the database, and has the nodes do what they do at intervals.
func (r *rig) move(d time.Duration) {
	r.moved.Add(int64(d))
	r.sweep()
}

func (r *rig) sweep() {
	for _, n := range r.nodes {
		n.d.Sweep(r.t.Context())
	}
}
