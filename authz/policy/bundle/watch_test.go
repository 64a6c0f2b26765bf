package bundle

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// rig is a watcher over files on disk, in a bubble of fake time.
type rig struct {
	t       *testing.T
	dir     string
	watcher *Watcher
	calls   atomic.Int32
}

// watch runs f while a watcher polls loaded files every second.
func watch(t *testing.T, f func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, dir: t.TempDir()}
		r.write("p.rego", allowAll)
		src := Disk(r.dir)
		loaded, err := src.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		r.watcher = NewWatcher(src, time.Second, loaded, func(context.Context, Source) { r.calls.Add(1) })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { r.watcher.Run(ctx) })
		time.Sleep(time.Second / 2) // half way between polls, from here on
		f(r)
		cancel()
		wg.Wait()
	})
}

func (r *rig) write(name, content string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(content), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) want(calls int) {
	r.t.Helper()
	if n := int(r.calls.Load()); n != calls {
		r.t.Fatalf("%d calls, want %d", n, calls)
	}
}

// poll lets one poll pass, and checks the number of calls so far.
func (r *rig) poll(calls int) {
	r.t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	r.want(calls)
}

func TestWatcher_WaitsForQuiet(t *testing.T) {
	watch(t, func(r *rig) {
		r.poll(0)
		r.write("p.rego", allowAll+"# one")
		r.poll(0)
		r.write("p.rego", allowAll+"# one two")
		r.poll(0) // still being written
		r.poll(1)
		r.poll(1) // not again for the same content
	})
}

func TestWatcher_ForgetsAnUndoneChange(t *testing.T) {
	watch(t, func(r *rig) {
		r.write("p.rego", "package other")
		r.poll(0)
		r.write("p.rego", allowAll)
		r.poll(0)
		r.write("p.rego", "package other")
		r.poll(0)
		r.poll(1)
	})
}

func TestWatcher_SeesFilesComeAndGo(t *testing.T) {
	watch(t, func(r *rig) {
		r.write("d.json", "{}")
		r.poll(0)
		r.poll(1)
		if err := os.Remove(filepath.Join(r.dir, "d.json")); err != nil {
			t.Fatal(err)
		}
		r.poll(1)
		r.poll(2)
		r.write("p_test.rego", "package t")
		r.write("README.md", "hello")
		r.poll(2)
		r.poll(2) // neither is loaded
	})
}

func TestWatcher_Poke(t *testing.T) {
	watch(t, func(r *rig) {
		r.watcher.Poke()
		synctest.Wait()
		r.want(1)
		r.write("d.json", "{}")
		r.watcher.Poke()
		synctest.Wait()
		r.want(2)
		r.poll(2)
		r.poll(2)
		for range 100 {
			r.watcher.Poke() // never blocks
		}
	})
}

func TestWatcher_ReportsUnreadableFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		w := NewWatcher(Disk("/nowhere/at/all"), 0, "", func(context.Context, Source) { calls++ })
		ctx, cancel := context.WithTimeout(t.Context(), 10*DefaultPollInterval)
		defer cancel()
		w.Run(ctx)
		if calls != 1 {
			t.Errorf("%d calls", calls)
		}
	})
}
