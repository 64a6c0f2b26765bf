package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// slowRule takes longer than any check may, for one path.
const slowRule = `package tollkeeper.custom

deny contains {"reason": "never_said", "detail": "Never said."} if {
	input.attributes.request.http.path == "/slow"
	some i in numbers.range(1, 2000)
	some j in numbers.range(1, 2000)
	i + j < 0
}
`

const (
	pacedLoops = 4
	pace       = 2 * time.Millisecond // of each loop, so that the load itself does not keep the machine busy
	keyWrites  = 1000                 // a second
)

// stallTimes are the latencies of paced checks without and with a disturbance: policies are reloaded once a second, keys
// change a thousand times a second, and one check after another evaluates a policy that is too slow.
type stallTimes struct {
	quiet, disturbed        histogram
	reloads, written, slows atomic.Int64
}

// stalls measures how much disturbances delay other checks.
func stalls(ctx context.Context, o options, dir string, w io.Writer) (err error) {
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return err
	}
	people := newPopulation(smallSet)
	l := loadOf(people, smallSet)
	t, err := newTollkeeper(ctx, binary, dir, &dataset{name: "stalls", people: people, policy: ", reload_interval: 100ms"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	policies := filepath.Join(dir, "stalls-policies")
	if err := os.WriteFile(filepath.Join(policies, "custom.rego"), []byte(slowRule), 0o600); err != nil {
		return err
	}
	if _, _, err := t.start(ctx); err != nil {
		return err
	}
	conns, err := dial(t.Port())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conns.close()) }()
	if _, err := conns.each(ctx, &l, 0, patience); err != nil {
		return err
	}
	conn := conns[0]
	var m stallTimes
	span := time.Duration(float64(o.rounds) * o.seconds * float64(time.Second))
	progress("quiet for %v", span)
	if err := paced(ctx, conn, &l, span, &m.quiet); err != nil {
		return err
	}
	progress("disturbed for %v", span)
	if err := m.disturb(ctx, t, conn, &l, policies, span); err != nil {
		return err
	}
	return m.report(w, span)
}

// paced sends checks in a few loops, each at its pace, and records their latencies.
func paced(ctx context.Context, conn *grpc.ClientConn, l *load, span time.Duration, into *histogram) error {
	parts := make([]histogram, pacedLoops)
	g, ctx := errgroup.WithContext(ctx)
	for i := range parts {
		g.Go(func() error {
			asker, err := l.asker(seed{loop: uint64(i)})
			if err != nil {
				return err
			}
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for end := time.Now().Add(span); time.Now().Before(end); {
				<-tick.C
				var a answer
				began := time.Now()
				q, _ := asker.next(began)
				if err := conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, q, &a); err != nil {
					return err
				}
				if a.err != nil {
					return a.err
				}
				parts[i].add(time.Since(began))
			}
			return nil
		})
	}
	err := g.Wait()
	for i := range parts {
		into.merge(&parts[i])
	}
	return err
}

// disturb runs all disturbances beside paced checks.
func (m *stallTimes) disturb(ctx context.Context, t *tollkeeper, conn *grpc.ClientConn, l *load, policies string, span time.Duration) error {
	ids, err := keyIDs(ctx, t)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	over := time.Now().Add(span)
	g.Go(func() error { return paced(ctx, conn, l, span, &m.disturbed) })
	g.Go(func() error { return m.reloadPolicies(ctx, policies, over) })
	const writers = 16
	for i := range writers {
		g.Go(func() error {
			tick := time.NewTicker(writers * time.Second / keyWrites)
			defer tick.Stop()
			for n := i; time.Now().Before(over); n += writers {
				<-tick.C
				body := fmt.Sprintf(`{"name":"name %d"}`, n)
				if err := adminCall(ctx, t, http.MethodPatch, "/v1/keys/"+ids[n%len(ids)], body, nil); err != nil {
					return err
				}
				m.written.Add(1)
			}
			return nil
		})
	}
	g.Go(func() error { return m.checkSlowly(ctx, conn, l, over) })
	return g.Wait()
}

// reloadPolicies changes the policies once a second.
func (m *stallTimes) reloadPolicies(ctx context.Context, policies string, over time.Time) error {
	for n := 0; time.Now().Before(over); n++ {
		next := filepath.Join(policies, "..", "next.yaml")
		if err := os.WriteFile(next, fmt.Appendf(nil, "# %d\n%s", n, plansYAML), 0o600); err != nil {
			return err
		}
		if err := os.Rename(next, filepath.Join(policies, "plans.yaml")); err != nil {
			return err
		}
		m.reloads.Add(1)
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

// checkSlowly sends checks that evaluate the slow rule, one at a time.
func (m *stallTimes) checkSlowly(ctx context.Context, conn *grpc.ClientConn, l *load, over time.Time) error {
	slow := l.to([]target{{method: "GET", path: "/slow"}})
	asker, err := slow.asker(seed{})
	if err != nil {
		return err
	}
	for time.Now().Before(over) {
		var a answer
		q, _ := asker.next(time.Now())
		if err := conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, q, &a); err != nil {
			return err
		}
		if a.err == nil {
			return errors.New("the slow policy was not slow")
		}
		m.slows.Add(1)
	}
	return nil
}

func keyIDs(ctx context.Context, t *tollkeeper) ([]string, error) {
	var list []struct{ ID string }
	if err := adminCall(ctx, t, http.MethodGet, "/v1/keys?limit=1000", "", &list); err != nil {
		return nil, err
	}
	ids := make([]string, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	return ids, nil
}

func adminCall(ctx context.Context, t *tollkeeper, method, path, body string, out any) error {
	token, err := t.Token()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, t.AdminURL()+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s %s: %s %s", method, path, resp.Status, raw)
	case out == nil:
		return nil
	}
	return json.Unmarshal(raw, out)
}

func (m *stallTimes) report(w io.Writer, span time.Duration) error {
	_, err := fmt.Fprintf(w, `Checks every %v on each of %d loops, for %v each

             checks        p50        p99      p99.9
quiet     %9s  %9s  %9s  %9s
disturbed %9s  %9s  %9s  %9s   %d reloads, %.0f key writes a second, %d checks of a policy that is too slow
`, pace, pacedLoops, span,
		count(float64(m.quiet.total)), millis(m.quiet.quantile(.5)), millis(m.quiet.quantile(.99)), millis(m.quiet.quantile(.999)),
		count(float64(m.disturbed.total)), millis(m.disturbed.quantile(.5)), millis(m.disturbed.quantile(.99)), millis(m.disturbed.quantile(.999)),
		m.reloads.Load(), float64(m.written.Load())/span.Seconds(), m.slows.Load())
	return err
}
