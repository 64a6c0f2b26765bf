package crashtest

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// A crash strands of a bucket at most what its callers used in the time of forgives, one percent of the limit and its credits, or one
// unit. That time is ten seconds; the other is for timers that are late and answers that were on their way.
const forgives = 10*time.Second + time.Second

// pace is callers who come in one way.
type pace struct {
	name    string
	callers int
	// next is how long a caller waits until the next check, after that many.
	next func(rng *rand.Rand, n int) time.Duration
}

var paces = []pace{
	{"steady", 2, func(*rand.Rand, int) time.Duration { return 15 * time.Millisecond }},
	{"bursty", 2, func(_ *rand.Rand, n int) time.Duration {
		if n%200 == 199 {
			return 12 * time.Second
		}
		return time.Millisecond
	}},
	{"slow", 5, func(rng *rand.Rand, _ int) time.Duration {
		return time.Duration(1000+rng.IntN(4000)) * time.Millisecond
	}},
	{"once", 60, func(rng *rand.Rand, n int) time.Duration {
		if n == 0 {
			return time.Duration(rng.IntN(16_000)) * time.Millisecond
		}
		return time.Hour
	}},
}

// caller is one of them, with an account of its own.
type caller struct {
	pace pace
	key  *key

	mu       sync.Mutex
	took     []time.Time      // when checks were sent that were allowed, or not answered
	stranded map[string]int64 // by limit, before the last kill
}

// used is how many units the caller may have used from that time on.
func (c *caller) used(since time.Time) (n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.took {
		if !t.Before(since) {
			n++
		}
	}
	return n
}

// come sends checks until ctx ends.
func (c *caller) come(ctx context.Context, cl *clients, rng *rand.Rand) {
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(c.pace.next(rng, n)):
		}
		sent := time.Now()
		if allowed, answered := cl.ask(ctx, c.key, false); allowed || !answered {
			c.mu.Lock()
			c.took = append(c.took, sent)
			c.mu.Unlock()
		}
	}
}

// strandings is what kills stranded, by pace.
type strandings struct {
	shares   map[string][]float64 // of what is allowed
	stranded map[string]int64     // units
	buckets  map[string]int
	unused   map[bucket]int64 // charged and not allowed to anybody
	of       map[bucket]string
}

func newStrandings() *strandings {
	return &strandings{make(map[string][]float64), make(map[string]int64), make(map[string]int), make(map[bucket]int64), make(map[bucket]string)}
}

// log reports what the kills cost.
func (s *strandings) log(t *testing.T) {
	for _, p := range paces {
		all, unused := s.shares[p.name], int64(0)
		for b, n := range s.unused {
			if s.of[b] == p.name {
				unused += n
			}
		}
		if len(all) == 0 {
			continue
		}
		slices.Sort(all)
		t.Logf("%s: %d units of %d buckets are stranded, %d of which nobody got; of what is allowed, p50 %.2f, p90 %.2f, most %.2f",
			p.name, s.stranded[p.name], s.buckets[p.name], unused, all[len(all)/2], all[len(all)*9/10], all[len(all)-1])
	}
}

// TestCrash_StrandsLittle kills a server under callers of very different pace, while it serves or while it shuts down, and looks at what
// is stranded of an hour, a day, a month and credits.
func TestCrash_StrandsLittle(t *testing.T) {
	rounds := max(1, int(number(t, roundsVariable, fewRounds))/20)
	seed := number(t, seedVariable, uint64(time.Now().UnixNano()))
	t.Logf("%d rounds; repeat the choices with %s=%d", rounds, seedVariable, seed)
	r := &run{t: t, tk: startServer(t), w: newWorld(), rng: rand.New(rand.NewPCG(seed, 0)), kills: make(map[string]int)}
	r.connect()
	s := newStrandings()
	for ; r.round < rounds && !t.Failed(); r.round++ {
		callers := r.newCallers()
		for range 2 { // the second kill finds what the first has stranded
			killed := r.killUnder(callers)
			r.doctor()
			r.start()
			for _, c := range callers {
				r.compare(c, killed, s)
			}
		}
	}
	for _, f := range append(r.w.faults, r.w.overspent()...) {
		t.Error(f)
	}
	s.log(t)
	var allowed int64
	for _, n := range r.w.allows {
		allowed += n
	}
	t.Logf("killed while %v; %d units allowed", r.kills, allowed)
}

// newCallers makes accounts with credits.
func (r *run) newCallers() (out []*caller) {
	r.t.Helper()
	for _, p := range paces {
		for range p.callers {
			a := r.c.makeAccount(r.t.Context(), "paced")
			if a == nil || !r.c.makeKey(r.t.Context(), a) {
				r.t.Fatalf("round %d: no account: %v", r.round, r.w.faults)
			}
			r.c.credit(r.t.Context(), a, 4000)
			out = append(out, &caller{pace: p, key: r.w.keys[len(r.w.keys)-1], stranded: make(map[string]int64)})
		}
	}
	return out
}

// killUnder has the callers come, kills the server, and returns when.
func (r *run) killUnder(callers []*caller) (killed time.Time) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	for i, c := range callers {
		rng := rand.New(rand.NewPCG(r.rng.Uint64(), uint64(i)))
		r.c.wg.Go(func() { c.come(ctx, r.c, rng) })
	}
	<-time.After(7*time.Second + time.Duration(r.rng.IntN(9000))*time.Millisecond)
	how := []string{"serving", "serving", "stopping"}[r.rng.IntN(3)]
	r.kills[how]++
	killed = time.Now()
	if how == "stopping" {
		r.c.ending.Store(true)
		if err := r.tk.Signal(syscall.SIGTERM); err != nil {
			r.t.Error(err)
		}
		<-time.After(time.Duration(r.rng.IntN(30)) * time.Millisecond)
	}
	r.tk.Kill()
	cancel()
	r.c.wg.Wait()
	r.c.close()
	r.c = nil
	return killed
}

// compare looks at what the last kill has stranded of a caller's buckets.
func (r *run) compare(c *caller, killed time.Time, s *strandings) {
	r.t.Helper()
	recent := c.used(killed.Add(-forgives))
	for i, b := range bucketsOf(c.key) {
		kind := map[bool]string{true: "account", false: "key"}[plans()[c.key.account.plan][i].perAccount]
		q := r.quota(r.t.Context(), kind, b.holder, b.limit)
		s.unused[b], s.of[b] = r.unused(b, &q), c.pace.name
		lost := q.Stranded - c.stranded[b.limit]
		c.stranded[b.limit] = q.Stranded
		allowed := max(1, q.Allowance/100, recent)
		if lost > allowed {
			r.t.Errorf("round %d: a kill strands %d of %+v, a %s caller's, who used %d in the %v before; %d is allowed",
				r.round, lost, b, c.pace.name, recent, forgives, allowed)
		}
		if lost > 0 {
			s.shares[c.pace.name] = append(s.shares[c.pace.name], float64(lost)/float64(allowed))
			s.stranded[c.pace.name] += lost
			s.buckets[c.pace.name]++
		}
	}
}

// unused is how many units of a bucket are charged and were not allowed to anybody. A bucket is charged all that was allowed of it, and
// no more than its limit, unless a period has ended meanwhile.
func (r *run) unused(b bucket, q *admin.Quota) int64 {
	r.t.Helper()
	charged := q.Spent + q.Stranded
	for _, n := range q.Outstanding {
		charged += n
	}
	samePeriod := r.w.began.Truncate(time.Hour).Equal(time.Now().Truncate(time.Hour))
	if samePeriod && charged < r.w.allows[b] || charged > q.Allowance {
		r.t.Errorf("round %d: %+v: %d were allowed and %d are charged, of %d", r.round, b, r.w.allows[b], charged, q.Allowance)
	}
	return charged - r.w.allows[b]
}
