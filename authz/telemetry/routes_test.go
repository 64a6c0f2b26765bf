package telemetry

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// decided is an entry about a route, "" for none.
func decided(allowed bool, route string) *check.Entry {
	f := &authz.Facts{Route: authz.RouteFact{State: authz.RouteNone}}
	if route != "" {
		f.Route = authz.RouteFact{State: authz.RouteOK, Route: &authz.Route{Name: route}}
	}
	d := authz.Deny(authz.Answer{})
	if allowed {
		d = authz.Allow(authz.Answer{})
	}
	return &check.Entry{Decision: &d, Facts: f}
}

func named(names ...string) (table []*authz.Route) {
	for _, name := range names {
		table = append(table, &authz.Route{Name: name})
	}
	return table
}

// wantSeries compares the whole metric. Each of the lines is a label and the counts of allows and denials.
func wantSeries(t *testing.T, reg *prometheus.Registry, lines ...string) {
	t.Helper()
	want := "# HELP tollkeeper_route_decisions_total Checks by the route that applies (\"none\": no route; \"other\": not among the first 200 by name) and outcome (allow or deny).\n# TYPE tollkeeper_route_decisions_total counter\n"
	for _, l := range lines {
		var route string
		var allowed, denied int
		if _, err := fmt.Sscan(l, &route, &allowed, &denied); err != nil {
			t.Fatal(err)
		}
		want += fmt.Sprintf("tollkeeper_route_decisions_total{outcome=\"allow\",route=%q} %d\n", route, allowed)
		want += fmt.Sprintf("tollkeeper_route_decisions_total{outcome=\"deny\",route=%q} %d\n", route, denied)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "tollkeeper_route_decisions_total"); err != nil {
		t.Error(err)
	}
}

func TestRoutes_AreCountedByNameAndOutcome(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := New(reg, nil)
	m.Record(decided(true, "early"))
	m.RoutesLoaded(named("orders", "reports"))
	for _, e := range []*check.Entry{decided(true, "orders"), decided(true, "orders"), decided(false, "orders"), decided(false, "reports"), decided(false, ""), decided(true, "unknown")} {
		m.Record(e)
	}
	wantSeries(t, reg, "none 0 1", "orders 2 1", "other 2 0", "reports 0 1")
}

// TestRoutes_FollowTheTable: a route that stays goes on counting, one that is gone has no series, and is unknown from then on.
func TestRoutes_FollowTheTable(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := New(reg, nil)
	m.RoutesLoaded(named("orders", "reports"))
	m.Record(decided(true, "orders"))
	m.Record(decided(true, "reports"))
	m.RoutesLoaded(named("new", "orders"))
	for _, route := range []string{"orders", "reports", "new"} {
		m.Record(decided(true, route))
	}
	wantSeries(t, reg, "new 1 0", "none 0 0", "orders 2 0", "other 1 0")
	m.RoutesLoaded(nil)
	wantSeries(t, reg, "none 0 0", "other 1 0")
}

// TestRoutes_AreBounded loads tables that are too large again and again, each with other names. Among the names are some that
// would be a second series of the same name, or that cannot be the value of a label.
func TestRoutes_AreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := New(reg, nil)
	for table := range 5 {
		names := []string{"none", "other", "a\xff"}
		for i := range 3 * maxRoutes {
			names = append(names, fmt.Sprintf("table %d route %d", table, (i*7)%(3*maxRoutes)))
		}
		m.RoutesLoaded(named(append(names, names...)...))
		for _, name := range names {
			m.Record(decided(true, name))
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "tollkeeper_route_decisions_total" {
			continue
		}
		if n := len(f.GetMetric()); n != 2*(maxRoutes+2) {
			t.Errorf("%d series, want %d", n, 2*(maxRoutes+2))
		}
	}
	if got := testutil.ToFloat64(m.otherRoute.allowed); got != 5*(2*maxRoutes+3) {
		t.Errorf("%v in other, want %d", got, 5*(2*maxRoutes+3))
	}
}

// TestRoutes_OfTooManyTheFirstByName, whatever their order: servers with one table have the same series.
func TestRoutes_OfTooManyTheFirstByName(t *testing.T) {
	m := New(prometheus.NewRegistry(), nil)
	var names []string
	for i := range maxRoutes + 50 {
		names = append(names, fmt.Sprintf("route %03d", i))
	}
	slices.Reverse(names)
	m.RoutesLoaded(named(names...))
	slices.Sort(names)
	if got := slices.Sorted(maps.Keys(*m.routes.Load())); !slices.Equal(got, names[:maxRoutes]) {
		t.Errorf("%d routes from %q to %q", len(got), got[0], got[len(got)-1])
	}
}

// TestRoutes_LoadedUnderLoad: what is counted in between is not lost as long as the route stays.
func TestRoutes_LoadedUnderLoad(t *testing.T) {
	m := New(prometheus.NewRegistry(), nil)
	tables := [][]*authz.Route{named("orders"), named("orders", "reports")}
	m.RoutesLoaded(tables[0])
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 2000 {
				m.Record(decided(i%2 == 0, "orders"))
			}
		})
	}
	for i := range 2 {
		wg.Go(func() {
			for range 100 {
				m.RoutesLoaded(tables[i])
			}
		})
	}
	wg.Wait()
	c := (*m.routes.Load())["orders"]
	if a, d := testutil.ToFloat64(c.allowed), testutil.ToFloat64(c.denied); a != 4000 || d != 4000 {
		t.Errorf("%v allowed and %v denied, want 4000 of each", a, d)
	}
}

func TestRecord_AllocatesNothing(t *testing.T) {
	m := New(prometheus.NewRegistry(), nil)
	m.RoutesLoaded(named("orders"))
	for _, e := range []*check.Entry{decided(true, "orders"), decided(false, "unknown"), decided(false, "")} {
		if n := testing.AllocsPerRun(100, func() { m.Record(e) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}
