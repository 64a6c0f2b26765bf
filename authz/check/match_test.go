package check_test

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
)

// table is a table of routes for tests. The path of a request says what it finds: one of the states of a route, or "matrix" for
// a malformed path. The other segments are parameters.
type table struct{ calls atomic.Int32 }

var reports = &authz.Route{Name: "reports", Template: "/ok/{a}/{b}"}

func (t *table) Match(r *authz.Request, path *authz.PathFact, route *authz.RouteFact, room []authz.Param) {
	t.calls.Add(1)
	path.State, route.State = authz.PathOK, authz.RouteNone
	switch s := r.HTTP.Segments; s[0] {
	case "matrix":
		path.State, path.Fault = authz.PathMalformed, authz.PathMatrix
	case "missing":
		route.State = authz.RouteMissing
	case "ok":
		for _, value := range s[1:] {
			room = append(room, authz.Param{Name: "p", Value: value})
		}
		route.State, route.Route, route.Params = authz.RouteOK, reports, room
	case "panic":
		route.State, route.Route = authz.RouteOK, reports
		panic("postgres://root:hunter2@db/")
	}
}

// requestOf is a request with a key.
func (w *world) requestOf(segments ...string) *authz.Request {
	r := request("x-api-key", w.text)
	r.HTTP.Path, r.HTTP.Segments = "/"+strings.Join(segments, "/"), segments
	return r
}

// useTable puts a policy in force, with a table.
func (w *world) useTable(p check.Policy) *table {
	t := &table{}
	w.Use(&check.Rules{Policy: p, Routes: t, Plans: map[string][]authz.Limit{"small": limits}})
	return t
}

func TestMatch_APanicIsADenial(t *testing.T) {
	w := newWorld(t, nil, check.Options{})
	w.useTable(always(authz.Verdict{Allowed: true}))
	d := w.Check(t.Context(), w.requestOf("panic"))
	w.wantDeny(t, d, authz.ReasonPolicyError)
	if !strings.Contains(w.lastCause(), "hunter2") || strings.Contains(fmt.Sprint(d), "hunter2") {
		t.Errorf("the operator sees %q, the caller %v", w.lastCause(), d)
	}
	if w.spent(t) != 0 {
		t.Errorf("spent %d for a denial", w.spent(t))
	}
}

// TestMatch_WithoutATableTheShippedPoliciesDeny: nobody has read the path then, so nobody knows what it names.
func TestMatch_WithoutATableTheShippedPoliciesDeny(t *testing.T) {
	c, r := shipped(t, 100)
	if d := c.Check(t.Context(), r); !d.Allowed() {
		t.Fatalf("with a table: denied for %s", d.DeniedFor())
	}
	rules := *c.Rules()
	rules.Routes = nil
	c.Use(&rules)
	if d := c.Check(t.Context(), r); d.Allowed() || d.DeniedFor() != authz.ReasonRequestMalformed {
		t.Errorf("allowed %t for %q", d.Allowed(), d.DeniedFor())
	}
}

func TestMatch_NotesTheRouteInEveryAnswer(t *testing.T) {
	w := newWorld(t, nil, check.Options{})
	for _, allowed := range []bool{true, false} {
		w.useTable(always(authz.Verdict{Allowed: allowed, Charge: authz.Charge{}}))
		for path, want := range map[string]string{"ok": "reports", "none": "", "missing": "", "matrix": ""} {
			d := w.Check(t.Context(), w.requestOf(path, "7"))
			if got := d.Notes.Get("route"); d.Allowed() != allowed || got != want || d.Notes.Has("route") != (want != "") {
				t.Errorf("%s, allowed %t: the route is %q in %v", path, d.Allowed(), got, d.Notes)
			}
		}
	}
}

// TestMatch_TellsTheOperatorAboutAMissingRoute uses a policy that denies as the shipped policies do.
func TestMatch_TellsTheOperatorAboutAMissingRoute(t *testing.T) {
	w := newWorld(t, nil, check.Options{})
	w.useTable(always(authz.Verdict{Reason: authz.ReasonPolicyError}))
	r := w.requestOf("missing")
	r.ContextExtensions = map[string]string{"tollkeeper.route": "old"}
	w.wantDeny(t, w.Check(t.Context(), r), authz.ReasonPolicyError)
	if cause := w.lastCause(); !strings.Contains(cause, `"old"`) {
		t.Errorf("the cause is %q", cause)
	}
}

// TestMatch_ParamsBelongToOneCheck: evaluations share memory one after another, and must never do so at the same time. The last
// of the checks have more parameters than the memory of an evaluation holds.
func TestMatch_ParamsBelongToOneCheck(t *testing.T) {
	w := newWorld(t, nil, check.Options{})
	sameAsAsked := func(r *authz.Request, f *authz.Facts) {
		var got []string
		for _, p := range f.Route.Params {
			got = append(got, p.Value)
		}
		if want := r.HTTP.Segments[1:]; !slices.Equal(got, want) {
			t.Errorf("asked for %q, the parameters are %q", want, got)
		}
	}
	recorder := recorderFunc(func(e *check.Entry) { sameAsAsked(e.Request, e.Facts) })
	w.Checker = check.New(apikey.NewIdentifier(w.keys, apikey.Hasher{}), w.revoked, w.meter, recorder, check.Options{Credentials: check.Sources{Headers: []string{"x-api-key"}}})
	w.Use(&check.Rules{Routes: &table{}, Policy: rule(func(_ context.Context, r *authz.Request, f *authz.Facts) (authz.Verdict, error) {
		sameAsAsked(r, f)
		runtime.Gosched() // let other checks write
		sameAsAsked(r, f)
		return authz.Verdict{Reason: authz.ReasonPolicyDenied}, nil
	})})
	var wg sync.WaitGroup
	for caller := range 8 {
		wg.Go(func() {
			for i := range 300 {
				segments := []string{"ok"}
				for n := range i % 7 {
					segments = append(segments, fmt.Sprint(caller, ".", i, ".", n))
				}
				w.Check(t.Context(), w.requestOf(segments...))
			}
		})
	}
	wg.Wait()
}

func TestMatch_ExplainSeesTheSameRoute(t *testing.T) {
	for _, path := range []string{"ok", "none", "missing", "matrix"} {
		w := newWorld(t, nil, check.Options{})
		w.useTable(rule(goodKey))
		e := w.Explain(t.Context(), w.requestOf(path, "7", "8"), check.Explained{})
		w.wantRecorded(t, 0)
		w.Check(t.Context(), w.requestOf(path, "7", "8"))
		if f := w.book.entries[0].Facts; !reflect.DeepEqual(e.Facts.Route, f.Route) || e.Facts.Path != f.Path || f.Path.State == "" || f.Route.State == "" {
			t.Errorf("explained as %+v and %+v, checked as %+v and %+v", e.Facts.Path, e.Facts.Route, f.Path, f.Route)
		}
	}
}

// TestMatch_ASecondDecisionHasTheSameRoute: the units that the policy saw are gone when they are to be reserved, so that it is
// asked again.
func TestMatch_ASecondDecisionHasTheSameRoute(t *testing.T) {
	w := newWorld(t, nil, check.Options{})
	w.Checker = check.New(apikey.NewIdentifier(w.keys, apikey.Hasher{}), w.revoked, &refusingOnce{Dispenser: w.meter}, w.book,
		check.Options{Credentials: check.Sources{Headers: []string{"x-api-key"}}})
	var seen []authz.Facts
	matched := w.useTable(rule(func(_ context.Context, _ *authz.Request, f *authz.Facts) (authz.Verdict, error) {
		kept := *f
		kept.Route.Params = slices.Clone(f.Route.Params)
		seen = append(seen, kept)
		return authz.Verdict{Allowed: true}, nil
	}))
	if d := w.Check(t.Context(), w.requestOf("ok", "7")); !d.Allowed() || d.Notes.Get("route") != "reports" {
		t.Fatalf("denied for %s, notes %v", d.DeniedFor(), d.Notes)
	}
	if len(seen) != 2 || matched.calls.Load() != 1 {
		t.Fatalf("the policy was asked %d times and the table %d times, want 2 and 1", len(seen), matched.calls.Load())
	}
	if a, b := &seen[0], &seen[1]; a.Path != b.Path || !reflect.DeepEqual(a.Route, b.Route) || len(a.Route.Params) != 1 {
		t.Errorf("first %+v, then %+v", a.Route, b.Route)
	}
}

// TestMatch_AllocatesNothing compares checks with and without a table. Each has as many parameters as an evaluation has memory for.
func TestMatch_AllocatesNothing(t *testing.T) {
	w := newWorld(t, nil, check.Options{})
	w.Checker = check.New(apikey.NewIdentifier(w.keys, apikey.Hasher{}), w.revoked, w.meter, noRecorder{}, check.Options{Credentials: check.Sources{Headers: []string{"x-api-key"}}})
	r := w.requestOf("ok", "1", "2", "3", "4")
	count := func(routes check.Routes) float64 {
		w.Use(&check.Rules{Policy: rule(goodKey), Routes: routes})
		return testing.AllocsPerRun(2000, func() {
			if d := w.Check(t.Context(), r); !d.Allowed() || d.Notes.Has("route") != (routes != nil) {
				t.Fatal(d.DeniedFor(), d.Notes)
			}
		})
	}
	if with, without := count(&table{}), count(nil); with > without+raceAllocations {
		t.Errorf("%v allocations with a table, %v without", with, without)
	}
}

type recorderFunc func(*check.Entry)

func (f recorderFunc) Record(e *check.Entry) { f(e) }

// refusingOnce is a meter that refuses the first reservation.
type refusingOnce struct {
	*dispenser.Dispenser
	asked bool
}

func (m *refusingOnce) Reserve(ctx context.Context, h authz.Holder, l []authz.Limit, c authz.Charge, f []authz.QuotaFact, r *authz.Reservation) bool {
	if !m.asked {
		m.asked = true
		return false
	}
	return m.Dispenser.Reserve(ctx, h, l, c, f, r)
}
