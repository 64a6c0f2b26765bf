package postgres

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

func TestGate_OneProbeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			mu     sync.Mutex
			probes []time.Time
			away   = true
		)
		g := newGate(func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			probes = append(probes, time.Now())
			if away {
				return errors.New("away")
			}
			return nil
		}, slog.New(slog.DiscardHandler))
		defer g.close()
		if err := g.pass(); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			go g.shut(errors.New("refused"))
		}
		time.Sleep(time.Minute)
		if err := g.pass(); authz.KindOf(err) != authz.KindUnavailable || err == nil {
			t.Errorf("a closed gate: %v", err)
		}
		mu.Lock()
		if n := len(probes); n < 50 || n > 150 {
			t.Errorf("%d probes in a minute", n)
		}
		away = false
		mu.Unlock()
		time.Sleep(latestProbe)
		if err := g.pass(); err != nil {
			t.Errorf("%v after the database was back: %v", latestProbe, err)
		}
		n := len(probes)
		time.Sleep(time.Minute)
		if len(probes) != n {
			t.Errorf("%d probes of a database that is there", len(probes)-n)
		}
		g.shut(errors.New("closing")) // close ends the probing
	})
}

// TestLedger_DatabaseAway has many callers come while nothing can be reached: they are refused at once, and served when
// the way is open again.
func TestLedger_DatabaseAway(t *testing.T) {
	address, l := migrated(t), hourly(1000)
	proxy := pgtest.NewProxy(t, pgtest.Shared(t))
	s := open(t, Options{URL: proxy.URL(address)}).Ledger()
	renew(t, s, "a")
	leases(t, s, leaseFor("a", "h", 1, l, 1))
	proxy.SetDown(true)
	proxy.Disconnect()
	var seq uint64 = 1
	for range 1000 {
		seq++
		if _, err := leaseFor("a", "h", seq, l, 1).Send(t.Context(), s); authz.KindOf(err) != authz.KindUnavailable || err == nil {
			t.Fatalf("request %d: %v", seq, err)
		}
		if s.db.gate.pass() == nil {
			t.Fatal("the gate is open")
		}
	}
	proxy.SetDown(false)
	began := time.Now()
	waitUntil(t, "the ledger answers", func() bool {
		seq++
		_, err := leaseFor("a", "h", seq, l, 1).Send(t.Context(), s)
		return err == nil
	})
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("served %v after the database was back", d)
	}
}
