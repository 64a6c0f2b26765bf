package crashtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// The variables that set the number of rounds, and repeat the random choices of an earlier run. How far the server gets before it is
// killed still depends on the machine.
const (
	roundsVariable = "TOLLKEEPER_TEST_CRASH_ROUNDS"
	seedVariable   = "TOLLKEEPER_TEST_CRASH_SEED"
	fewRounds      = 5
)

// epoch is how many rounds use the same accounts. Then new ones are made, whose limits are not used up.
const epoch = 5

var binaryDir string // lives as long as the test run; TestMain sets it

// binary compiles the server when the first test asks for it.
var binary = sync.OnceValues(func() (string, error) {
	root, err := harness.ModuleRoot(".")
	if err != nil {
		return "", err
	}
	return harness.BuildTollkeeper(context.Background(), root, binaryDir)
})

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tollkeeper-crash-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binaryDir = dir
	m.Run()
}

// startServer runs the binary on new data, with the shipped rules and the plans of the test.
func startServer(t *testing.T) *harness.Tollkeeper {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "policies")
	if err := os.CopyFS(dir, policies.Files); err != nil {
		t.Fatal(err)
	}
	// The shipped routes charge limits that these plans do not have.
	for name, text := range map[string]string{"plans.yaml": plansYAML, "routes.yaml": "{}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("XDG_CONFIG_HOME", t.TempDir()) // where a server leaves its address for the command line
	tk, err := harness.StartTollkeeper(t.Context(), harness.TollkeeperOptions{
		Binary: path, Policies: dir, Extra: "request: {timeout: 5s}\nlog: {decisions: \"off\"}\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if log := tk.Log(); t.Failed() {
			t.Logf("the server wrote, in the end:\n%s", log[max(0, len(log)-4000):])
		}
		_ = tk.Close()
	})
	return tk
}

// run is one test: the server that is killed, and what its clients know.
type run struct {
	t   *testing.T
	w   *world
	rng *rand.Rand
	tk  *harness.Tollkeeper
	c   *clients // nil while the server does not run

	round    int
	starts   int
	kills    map[string]int
	repeated int // credits that were not acknowledged, and were sent again
	applied  int // how many of those had taken place after all
}

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// TestCrash kills the server at a random moment, starts it again, and checks all acknowledged writes, round after round on
// the same data.
func TestCrash(t *testing.T) {
	rounds, seed := int(number(t, roundsVariable, fewRounds)), number(t, seedVariable, uint64(time.Now().UnixNano()))
	t.Logf("%d rounds; repeat the choices with %s=%d", rounds, seedVariable, seed)
	r := &run{t: t, tk: startServer(t), w: newWorld(), rng: rand.New(rand.NewPCG(seed, 0)), kills: make(map[string]int)}
	r.connect()
	for ; r.round < rounds && !t.Failed(); r.round++ {
		if r.round%epoch == 0 {
			r.newAccounts()
		}
		r.crash()
		r.doctor()
		r.start()
		r.verify(false)
	}
	r.settle()
}

func (r *run) connect() {
	r.t.Helper()
	r.starts++
	c, err := connect(r.w, r.tk, strconv.Itoa(r.starts))
	if err != nil {
		r.t.Fatal(err)
	}
	r.c = c
}

func (r *run) start() {
	r.t.Helper()
	if err := r.tk.Start(r.t.Context()); err != nil {
		r.t.Fatalf("round %d: %v", r.round, err)
	}
	r.connect()
}

func (r *run) newAccounts() {
	r.t.Helper()
	for _, a := range r.w.accounts {
		a.current = false
	}
	for plan := range plans() {
		if plan == "paced" {
			continue
		}
		a := r.c.makeAccount(r.t.Context(), plan)
		if a == nil || !r.c.makeKey(r.t.Context(), a) || !r.c.makeKey(r.t.Context(), a) {
			r.t.Fatalf("round %d: no account on plan %s: %v", r.round, plan, r.w.faults)
		}
	}
}

// crash puts the server under load and kills it: while it serves, while it shuts down, or while it starts.
func (r *run) crash() {
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	r.c.load(ctx, r.rng.Uint64())
	how := []string{"serving", "serving", "serving", "stopping", "starting"}[r.rng.IntN(5)]
	r.kills[how]++
	<-time.After(time.Duration(20+r.rng.IntN(600)) * time.Millisecond)
	if r.round%epoch == epoch-1 {
		r.doctorAsked()
	}
	if how == "stopping" {
		r.c.ending.Store(true)
		if err := r.tk.Signal(syscall.SIGTERM); err != nil {
			r.t.Error(err)
		}
		<-time.After(time.Duration(r.rng.IntN(20)) * time.Millisecond)
	}
	r.tk.Kill()
	cancel()
	r.c.wg.Wait()
	r.c.close()
	r.c = nil
	if how == "starting" {
		soon, cancel := context.WithTimeout(r.t.Context(), time.Duration(1+r.rng.IntN(120))*time.Millisecond)
		defer cancel()
		_ = r.tk.Start(soon) // kills it when the time is up
		r.tk.Kill()
	}
}

// doctor checks the file that the crash left, with the command that an operator would use.
func (r *run) doctor() {
	r.t.Helper()
	path, err := binary()
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := exec.Command(path, "doctor", "ledger", "--data-dir", r.tk.DataDir()).CombinedOutput()
	if err != nil {
		r.t.Errorf("round %d: doctor: %v\n%s", r.round, err, out)
	}
}

// doctorAsked has the server check the file that it uses.
func (r *run) doctorAsked() {
	r.t.Helper()
	if _, err := r.tk.CLI(r.t.Context(), "doctor", "ledger"); err != nil {
		r.t.Errorf("round %d: doctor, while the server runs: %v", r.round, err)
	}
}

// verify checks acknowledged writes with the server: all of them, or the new ones and a few others.
func (r *run) verify(everything bool) {
	r.t.Helper()
	ctx := r.t.Context()
	for _, k := range r.w.keys {
		if k.verified && !everything && r.rng.IntN(len(r.w.keys)) > 20 {
			continue
		}
		// A key whose revocation was not acknowledged may be revoked or not: answered allows for that.
		if !r.c.check(ctx, k, k.revoked) {
			r.t.Fatalf("round %d: the server does not answer", r.round)
		}
		k.verified = true
	}
	for _, a := range r.w.accounts {
		if len(a.credits) > 0 && (a.current || everything) {
			r.verifyCredits(ctx, a)
		}
	}
	r.w.faults = append(r.w.faults, r.w.overspent()...)
	for _, f := range r.w.faults {
		r.t.Errorf("round %d: %s", r.round, f)
	}
}

// verifyCredits checks that every acknowledged credit is in the balance, sends the others again, and checks that each is then in the
// balance exactly once.
func (r *run) verifyCredits(ctx context.Context, a *account) {
	r.t.Helper()
	var acked, all int64
	var pending []*credit
	for _, c := range a.credits {
		all += c.units
		if c.acked {
			acked += c.units
		} else {
			pending = append(pending, c)
		}
	}
	before := r.quota(ctx, "account", a.id, "credits").Allowance
	if before < acked || before > all {
		r.t.Errorf("round %d: %s has %d credits; %d were acknowledged, %d sent", r.round, a.id, before, acked, all)
	}
	again := append(pending, a.credits[r.rng.IntN(len(a.credits))])
	for _, c := range again {
		if !r.c.repeat(ctx, a, c) {
			r.t.Errorf("round %d: credit %s could not be repeated", r.round, c.id)
		}
	}
	if after := r.quota(ctx, "account", a.id, "credits").Allowance; after != all {
		r.t.Errorf("round %d: %s has %d credits after all were sent again, want %d", r.round, a.id, after, all)
	}
	r.repeated += len(pending)
	if len(pending) == 1 && before == all { // with several it cannot be told
		r.applied++
	}
}

// quota asks for one limit of a key or an account.
func (r *run) quota(ctx context.Context, kind, id, name string) admin.Quota {
	r.t.Helper()
	var list []admin.Quota
	if err := r.c.admin.Do(ctx, http.MethodGet, "/v1/quota?"+kind+"="+url.QueryEscape(id), nil, &list); err != nil {
		r.t.Fatal(err)
	}
	for _, q := range list {
		if q.Limit == name {
			return q
		}
	}
	r.t.Fatalf("%s %s has no limit %q", kind, id, name)
	return admin.Quota{}
}

// settle checks everything once more and stops the server in good order, so that only units lost to crashes are still out. Then it
// compares what was charged with what was allowed.
func (r *run) settle() {
	r.t.Helper()
	if r.t.Failed() {
		return
	}
	r.verify(true)
	r.c.close()
	if err := r.tk.Stop(); err != nil {
		r.t.Errorf("the last stop: %v", err)
	}
	r.doctor()
	r.start()
	defer r.c.close()
	seen := make(map[bucket]bool)
	var allowed, charged, full int64
	for _, k := range r.w.keys {
		for i, b := range bucketsOf(k) {
			if seen[b] {
				continue
			}
			seen[b] = true
			l := plans()[k.account.plan][i]
			if l.rate > 0 {
				continue
			}
			kind := map[bool]string{true: "account", false: "key"}[l.perAccount]
			q := r.quota(r.t.Context(), kind, b.holder, b.limit)
			took := q.Spent + q.Stranded
			for _, n := range q.Outstanding {
				took += n
			}
			if samePeriod := r.w.began.Truncate(time.Hour).Equal(time.Now().Truncate(time.Hour)); samePeriod && took < r.w.allows[b] || took > q.Allowance {
				r.t.Errorf("%+v: %d were allowed and %d charged, of %d", b, r.w.allows[b], took, q.Allowance)
			}
			if took == q.Allowance {
				full++
			}
			allowed, charged = allowed+r.w.allows[b], charged+took
		}
	}
	var denied []string
	for reason, n := range r.w.denied {
		denied = append(denied, fmt.Sprintf("%d %s", n, reason))
	}
	r.t.Logf("%d rounds in %v, killed while %v", r.round, time.Since(r.w.began).Round(time.Second), r.kills)
	r.t.Logf("acknowledged %v; %d credits were not, and sent again; at least %d of them had taken place", r.w.acked, r.repeated, r.applied)
	r.t.Logf("%d units allowed in %d buckets, %d of them used up; %d charged, so %d lost to crashes; denied: %s",
		allowed, len(seen), full, charged, charged-allowed, strings.Join(denied, ", "))
}
