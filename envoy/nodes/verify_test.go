package nodes

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres"
)

// verify compares what the clients know with what the servers say now.
func (r *run) verify() {
	r.t.Helper()
	r.verifyKeys()
	r.verifyCredits()
	r.w.overspent()
	r.check("the end")
	for _, n := range r.f.nodes {
		if err := n.Stop(); err != nil {
			r.t.Errorf("the last stop: %v", err)
		}
	}
	r.verifyBooks()
	// A server that has leased nothing says what is charged.
	if err := r.f.nodes[0].Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.verifyBuckets()
	r.check("the last stop")
}

// parallel calls f for numbers below n.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// verifyKeys asks with every key that was acknowledged, and with those that were revoked at every Envoy, until it is decided. The clients
// know which answers are right.
func (r *run) verifyKeys() {
	parallel(len(r.w.keys), func(i int) {
		k, times := r.w.keys[i], 1
		if !k.revoked.IsZero() {
			times = nodeCount
		}
		for envoy := range times {
			deadline := time.Now().Add(patient)
			for status, reason := r.c.askAt(i+envoy, k); undecided(status, reason); status, reason = r.c.askAt(i+envoy, k) {
				if time.Now().After(deadline) {
					r.w.fault("key %s gets %d %s, again and again, although all servers run", k.id, status, reason)
					return
				}
			}
		}
	})
}

// verifyCredits checks that every acknowledged credit is in the balance, sends the others again, and checks that each is then in the
// balance exactly once.
func (r *run) verifyCredits() {
	r.t.Helper()
	var accounts []*account
	for _, a := range r.w.accounts {
		if len(a.credits) > 0 {
			accounts = append(accounts, a)
		}
	}
	var mu sync.Mutex
	repeated, applied := 0, 0
	parallel(len(accounts), func(i int) {
		a, n := accounts[i], r.f.nodes[i%nodeCount]
		var acked, all int64
		pending := []*credit{a.credits[0]}
		for _, c := range a.credits {
			if all += c.units; c.acked {
				acked += c.units
			} else {
				pending = append(pending, c)
			}
		}
		before := r.quota(n, "account", a.id)["credits"].Allowance
		if before < acked || before > all {
			r.w.fault("%s has %d credits; %d were acknowledged, %d sent", a.id, before, acked, all)
		}
		for _, c := range pending {
			r.c.repeat(n, a, c)
		}
		if after := r.quota(n, "account", a.id)["credits"].Allowance; after != all {
			r.w.fault("%s has %d credits after all were sent again, want %d", a.id, after, all)
		}
		mu.Lock()
		defer mu.Unlock()
		if repeated += len(pending) - 1; len(pending) == 2 && before == all { // with several it cannot be told
			applied++
		}
	})
	r.t.Logf("%d credits were not acknowledged, and sent again; at least %d of them had taken place", repeated, applied)
}

// quota asks for the limits of a key or an account.
func (r *run) quota(n *node, kind, id string) map[string]admin.Quota {
	var list []admin.Quota
	ctx, cancel := context.WithTimeout(r.t.Context(), patient)
	defer cancel()
	if err := n.admin.Do(ctx, http.MethodGet, "/v1/quota?"+kind+"="+url.QueryEscape(id), nil, &list); err != nil {
		r.w.fault("the quotas of %s %s: %v", kind, id, err)
	}
	out := make(map[string]admin.Quota)
	for _, q := range list {
		out[q.Limit] = q
	}
	return out
}

// verifyBooks checks the books of all holders in the database: granted = spent + returned + stranded + outstanding.
func (r *run) verifyBooks() {
	r.t.Helper()
	db, err := openDatabase(r.t.Context(), r.f.url)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.Ledger().Check(r.t.Context()); err != nil {
		r.t.Errorf("the books: %v", err)
	}
}

func openDatabase(ctx context.Context, url string) (*postgres.DB, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	var pepper string
	if err := conn.QueryRow(ctx, "SELECT pepper FROM tollkeeper.installation").Scan(&pepper); err != nil {
		return nil, err
	}
	return postgres.Open(ctx, postgres.Options{URL: url, Pepper: pepper})
}

// figures are the sums of all buckets.
type figures struct {
	mu               sync.Mutex
	buckets, full    int
	allowed, charged int64
	lost, listed     int64   // units that nodes held when they died, and those that quota stranded lists
	share            float64 // the largest part of what may be stranded that is
}

// verifyBuckets compares what is charged with what was allowed, and what is stranded with what may be.
func (r *run) verifyBuckets() {
	r.t.Helper()
	listed := r.listStranded()
	var fig figures
	buckets := slices.Collect(maps.Keys(r.w.counts))
	parallel(len(buckets), func(i int) {
		if b := buckets[i]; r.w.counts[b].limit.window != "second" {
			r.verifyBucket(b, r.w.counts[b], listed[b], &fig)
		}
	})
	r.t.Logf("%d units allowed in %d buckets, %d of them used up; %d charged, of which %d are stranded (%d of prepaid limits are listed); at most %.2f of what may be stranded of a bucket is",
		fig.allowed, fig.buckets, fig.full, fig.charged, fig.lost, fig.listed, fig.share)
	if fig.full < 10 {
		r.t.Errorf("only %d buckets were used up: the load was too small to show anything", fig.full)
	}
}

func (r *run) verifyBucket(b bucket, c *count, listed int64, fig *figures) {
	kind := map[bool]string{true: "account", false: "key"}[c.limit.perAccount]
	q := r.quota(r.f.nodes[0], kind, b.holder)[b.limit]
	lost, allowed := q.Stranded, int64(len(c.times))
	for _, units := range q.Outstanding {
		lost += units // of a node that is thought alive: it died, and so did the next one in its place, before the ledger heard of that
	}
	charged := q.Spent + lost
	if r.w.onePeriod(&c.limit) && charged < allowed || charged > q.Allowance {
		r.w.fault("%+v: %d were allowed and %d charged, of %d", b, allowed, charged, q.Allowance)
	}
	if c.limit.window == "none" && listed != q.Stranded {
		r.w.fault("%+v: %d are stranded, and quota stranded lists %d", b, q.Stranded, listed)
	}
	var may int64
	for _, end := range r.x.lost {
		may += max(1, q.Allowance/100, c.used(r.x.since(end), end))
	}
	if lost > may {
		r.w.fault("%+v: %d are stranded or held by nodes that are stopped, and %d may be: %+v", b, lost, may, q)
	}
	fig.mu.Lock()
	defer fig.mu.Unlock()
	if fig.buckets++; charged == q.Allowance {
		fig.full++
	}
	fig.allowed, fig.charged, fig.lost, fig.listed = fig.allowed+allowed, fig.charged+charged, fig.lost+lost, fig.listed+listed
	fig.share = max(fig.share, float64(lost)/float64(max(1, may)))
}

// listStranded is what the command tells an operator.
func (r *run) listStranded() map[bucket]int64 {
	r.t.Helper()
	text, err := r.f.nodes[0].CLI(r.t.Context(), "quota", "stranded")
	if err != nil {
		r.t.Fatal(err)
	}
	var list struct{ Stranded []admin.Stranded }
	if err := json.Unmarshal(text, &list); err != nil {
		r.t.Fatalf("%v: %s", err, text)
	}
	out := make(map[bucket]int64)
	for _, s := range list.Stranded {
		out[bucket{s.Limit, s.Holder}] += s.Units
	}
	return out
}

// report logs what happened under load, and returns how many requests were allowed.
func (r *run) report(length time.Duration) int64 {
	r.w.mu.Lock()
	answers, asked, allowed := make([]string, 0, len(r.w.answers)), 0, r.w.allowed
	for _, name := range slices.Sorted(maps.Keys(r.w.answers)) {
		answers, asked = append(answers, fmt.Sprintf("%s: %d", name, r.w.answers[name])), asked+r.w.answers[name]
	}
	r.t.Logf("%d requests, %.0f/s; %s", asked, float64(asked)/length.Seconds(), strings.Join(answers, ", "))
	r.t.Logf("faults: %v", r.x.count)
	r.t.Logf("acknowledged: %v", r.w.acked)
	r.w.mu.Unlock()
	revoked, made := r.w.delays()
	r.t.Logf("the last request that was allowed came after the revocation of its key by %s", percentiles(revoked))
	r.t.Logf("the last request that found its key unknown came after the key was made by %s", percentiles(made))
	return allowed
}

func percentiles(sorted []time.Duration) string {
	if len(sorted) == 0 {
		return "nothing"
	}
	at := func(p int) time.Duration { return sorted[(len(sorted)-1)*p/100].Round(time.Millisecond) }
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, at most %v (%d keys)", at(50), at(90), at(99), at(100), len(sorted))
}
