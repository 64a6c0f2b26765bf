package dispenser_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// bulkFile is the variable that makes the test binary use a file until it is killed, and bulkTime the time that it begins at, in Unix
// seconds.
const (
	bulkFile    = "TOLLKEEPER_TEST_BULK_FILE"
	bulkTime    = "TOLLKEEPER_TEST_BULK_TIME"
	bulkRounds  = "TOLLKEEPER_TEST_CRASH_ROUNDS"
	bulkHolders = 400
)

func TestMain(m *testing.M) {
	if path := os.Getenv(bulkFile); path != "" {
		fmt.Fprintln(os.Stderr, useUntilKilled(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// bulkLimits are charged at once.
func bulkLimits() []authz.Limit {
	limits := []authz.Limit{
		{Name: "hourly", Units: 300, Window: authz.WindowHour, Per: authz.PerKey},
		{Name: "monthly", Units: 5_000, Window: authz.WindowMonth, Per: authz.PerAccount},
		{Name: "credits", Units: 2_000, Window: authz.WindowNone, Per: authz.PerAccount},
	}
	for i := range limits {
		limits[i].Count = quota.BucketOf(&limits[i], authz.Holder{}).CountKey()
	}
	return limits
}

func bulkHolder(i int) authz.Holder {
	return authz.Holder{Key: "key_" + strconv.Itoa(i), Account: "account_" + strconv.Itoa(i)}
}

// user is a process that uses a file, on a clock of its own.
type user struct {
	began   time.Time
	passed  atomic.Int64
	d       *dispenser.Dispenser
	limits  []authz.Limit
	printed sync.Mutex
}

func (u *user) now() time.Time { return u.began.Add(time.Duration(u.passed.Load())) }

// say prints a line with one system call: it is printed whole or not at all.
func (u *user) say(format string, args ...any) {
	u.printed.Lock()
	defer u.printed.Unlock()
	_, _ = fmt.Fprintf(os.Stdout, "%d "+format+"\n", append([]any{u.now().Unix()}, args...)...)
}

// useUntilKilled has callers come, lets them rest until their leases are given back in bulk, and moves the log into the file meanwhile,
// again and again. It prints each unit that a caller got.
func useUntilKilled(path string) error {
	seconds, err := strconv.ParseInt(os.Getenv(bulkTime), 10, 64)
	if err != nil {
		return err
	}
	u := &user{began: time.Unix(seconds, 0).UTC(), limits: bulkLimits()}
	db, err := bolt.Open(path, bolt.Options{Now: u.now})
	if err != nil {
		return err
	}
	u.d = dispenser.New(db.Ledger(), dispenser.NewNodeID("n"), u.now)
	ctx := context.Background()
	errs := make(chan error, 1)
	go func() {
		for {
			if _, err := db.Ledger().Forget(ctx); err != nil {
				errs <- err
				return
			}
		}
	}()
	for {
		u.say("serving")
		u.serve(ctx)
		u.say("returning")
		for range 140 { // until the last shard was looked at
			u.passed.Add(int64(dispenser.SweepEvery))
			u.d.Sweep(ctx)
			u.take(ctx, rand.IntN(5)) // a few never rest
		}
		select {
		case err := <-errs:
			return err
		default:
		}
	}
}

// serve has callers come at once.
func (u *user) serve(ctx context.Context) {
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := worker; i < bulkHolders; i += 4 {
				for range 1 + i%3 {
					u.take(ctx, i)
				}
			}
		})
	}
	wg.Wait()
}

func (u *user) take(ctx context.Context, i int) {
	charge := authz.Charge{"hourly": 1, "monthly": 1, "credits": 1}
	if u.d.Reserve(ctx, bulkHolder(i), u.limits, charge, make([]authz.QuotaFact, len(u.limits)), new(authz.Reservation)) {
		u.say("took %d", i)
	}
}

// took is what callers got, by holder.
type took struct {
	all    [bulkHolders]int64
	at     [bulkHolders][]int64 // in the last run, when
	ended  int64                // when that run ended
	phases map[string]int       // in which runs were killed
}

// TestCrash_BulkReturns kills a process again and again, also while idle leases go back in bulk and while the log is moved into the file:
// no unit that a caller got is lost, nor given twice, and each kill strands little.
func TestCrash_BulkReturns(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv(bulkRounds))
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	got := &took{phases: make(map[string]int)}
	stranded := make(map[string]int64)
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for round := range max(8, rounds/4) {
		useAndKill(t, path, at, []string{"serving", "returning"}[round%2], got)
		at = time.Unix(got.ended, 0).UTC().Add(time.Second)
		verifyBulk(t, path, at, got, stranded)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
		at = at.Add(time.Minute) // the session of that node is over
	}
	var sum, units int64
	for _, n := range stranded {
		sum += n
	}
	for _, n := range got.all {
		units += n
	}
	t.Logf("killed while %v; %d units of each of %d limits served, %d stranded in all", got.phases, units, len(bulkLimits()), sum)
	if got.phases["returning"] < 2 {
		t.Error("few kills came while leases went back")
	}
}

// useAndKill runs the process and kills it at a random moment in one of the times of that phase.
func useAndKill(t *testing.T, path string, at time.Time, wanted string, got *took) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), bulkFile+"="+path, bulkTime+"="+strconv.FormatInt(at.Unix(), 10))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	got.at, got.ended = [bulkHolders][]int64{}, at.Unix()
	phase, left := "", 1+rand.IntN(3)
	for in := bufio.NewReader(out); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			break
		}
		words := strings.Fields(line)
		when, _ := strconv.ParseInt(words[0], 10, 64)
		got.ended = max(got.ended, when)
		if words[1] != "took" {
			if phase = words[1]; phase == wanted {
				left--
			}
			if left == 0 {
				time.AfterFunc(time.Duration(rand.IntN(25_000))*time.Microsecond, func() { _ = child.Process.Kill() })
			}
			continue
		}
		i, _ := strconv.Atoi(words[2])
		got.all[i]++
		got.at[i] = append(got.at[i], when)
	}
	got.phases[phase]++
	_ = child.Wait() // was killed
}

// underway is how many units callers may have got of which no line was printed.
const underway = 4

// verifyBulk checks the file that a kill left.
func verifyBulk(t *testing.T, path string, at time.Time, got *took, stranded map[string]int64) {
	t.Helper()
	db, err := bolt.Open(path, bolt.Options{Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(db.Check(t.Context()), db.Close()); err != nil {
			t.Error(err)
		}
	}()
	for i := range bulkHolders {
		recent := int64(0)
		for _, when := range got.at[i] {
			if got.ended-when <= 11 { // ten seconds, and the second that Unix time leaves out
				recent++
			}
		}
		for _, l := range bulkLimits() {
			bucket := quota.BucketOf(&l, bulkHolder(i))
			b, err := db.Ledger().Balance(t.Context(), bucket, l)
			if err != nil {
				t.Fatal(err)
			}
			charged := b.Spent + b.Stranded
			if l.Window != authz.WindowHour && charged < got.all[i] || charged > b.Allowance {
				t.Errorf("%s of %d: %d were served and %d are charged, of %d", l.Name, i, got.all[i], charged, b.Allowance)
			}
			if l.Window == authz.WindowHour {
				continue // the hour of the kill may be over
			}
			name := l.Name + strconv.Itoa(i)
			if now := b.Stranded - stranded[name]; now > max(1, l.Units/100, recent)+underway {
				t.Errorf("%s of %d: a kill strands %d, with %d used of late", l.Name, i, now, recent)
			}
			stranded[name] = b.Stranded
		}
	}
}
