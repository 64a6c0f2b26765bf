package crashtest

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// fill makes every write to a file fail, as on a full disk, until the returned function is called.
func fill(t *testing.T, tk *harness.Tollkeeper) (empty func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Prlimit(tk.PID(), unix.RLIMIT_FSIZE, nil, &before); err != nil {
		t.Fatal(err)
	}
	set := func(l unix.Rlimit) {
		t.Helper()
		if err := unix.Prlimit(tk.PID(), unix.RLIMIT_FSIZE, &l, nil); err != nil {
			t.Fatal(err)
		}
	}
	set(unix.Rlimit{Cur: 0, Max: before.Max})
	return func() { set(before) }
}

// TestServer_FullDisk fills the disk under the running server, twice. While it is full, every caller is denied, and no write is
// acknowledged; afterwards, all works again. The log has one line for the beginning and one for the end.
func TestServer_FullDisk(t *testing.T) {
	r := &run{t: t, tk: startServer(t), w: newWorld()}
	r.connect()
	defer r.c.close()
	ctx := t.Context()
	for round := range 2 {
		var keys []*key
		for range 5 {
			a := r.c.makeAccount(ctx, "daily")
			if a == nil || !r.c.makeKey(ctx, a) {
				t.Fatal(r.w.faults)
			}
			keys = append(keys, r.w.keys[len(r.w.keys)-1])
		}
		empty := fill(t, r.tk)
		r.c.ending.Store(true) // a denial because of the store is right, as it is while the server stops
		allowed := len(r.w.allows)
		for range 20 {
			for _, k := range keys {
				r.c.check(ctx, k, false)
			}
		}
		if n := r.w.denied["store_unavailable"]; n != 100*(round+1) || len(r.w.allows) != allowed {
			t.Errorf("on a full disk %d checks were denied for it: %v, %v", n, r.w.denied, r.w.allows)
		}
		if r.c.makeAccount(ctx, "daily") != nil {
			t.Error("an account was acknowledged on a full disk")
		}
		empty()
		r.c.ending.Store(false)
		await(t, "the server writes again", func() bool { return r.c.makeAccount(ctx, "daily") != nil })
		for _, k := range keys {
			r.c.check(ctx, k, false)
			if b := bucketsOf(k)[0]; r.w.allows[b] != 1 {
				t.Errorf("with room on the disk again: %v, %v", r.w.allows, r.w.faults)
			}
		}
		log := r.tk.Log()
		if n := strings.Count(log, `"cannot write to the data file`); n != round+1 {
			t.Errorf("a full disk was reported %d times in %d rounds", n, round+1)
		}
		if n := strings.Count(log, `"the data file can be written again"`); n != round+1 {
			t.Errorf("the end of it was reported %d times in %d rounds", n, round+1)
		}
	}
	// The log also has the write by an operator that was refused in each round.
	if n := strings.Count(r.tk.Log(), `"level":"ERROR"`); n != 4 {
		t.Errorf("%d lines of errors:\n%s", n, r.tk.Log())
	}
	for _, f := range r.w.faults {
		t.Error(f)
	}
	r.doctorAsked()
}

// await polls until a condition holds.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting until %s", what)
		}
	}
}
