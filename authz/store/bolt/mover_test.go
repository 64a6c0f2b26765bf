package bolt

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestMover_Killed kills at every step of moving: everything is there, however often it is moved again.
func TestMover_Killed(t *testing.T) {
	db := openAt(t, filepath.Join(t.TempDir(), "tollkeeper.db"), calm())
	want := make(map[string]string)
	fill := func(n int, value string) {
		for i := range n {
			bucket := logged[1+i%(len(logged)-1)]
			put(t, db, bucket, fmt.Sprint(i), value)
			want[bucket+" "+fmt.Sprint(i)] = value
		}
	}
	check := func(when string) {
		t.Helper()
		path := killed(t, db)
		for range 2 {
			again := openAt(t, path, calm())
			wantAll(t, again, want)
			abandon(again)
		}
		again := openAt(t, path, calm())
		if err := again.Close(); err != nil {
			t.Error(err)
		}
		again = openAt(t, path, calm())
		wantAll(t, again, want)
		if t.Failed() {
			t.Fatalf("killed %s", when)
		}
	}
	fill(20, "first")
	if err := db.mover.move(t.Context()); err != nil {
		t.Fatal(err)
	}
	fill(16, "second")
	check("before moving")
	layers := db.overlay.freeze()
	fill(7, "third")
	check("when the layer is frozen")
	changes := sorted(layers)
	for len(changes) > 3 {
		if err := db.commits.do(t.Context(), func(w *write) error { return db.mover.write(w, changes[:3], 0) }); err != nil {
			t.Fatal(err)
		}
		changes = changes[3:]
		check("between two transactions")
		wantAll(t, db, want)
	}
	last := layers[len(layers)-1].last
	if err := db.commits.do(t.Context(), func(w *write) error { return db.mover.write(w, changes, last) }); err != nil {
		t.Fatal(err)
	}
	check("before the log is dropped")
	db.overlay.drop(len(layers))
	wantAll(t, db, want)
	if err := db.log.Drop(last); err != nil {
		t.Fatal(err)
	}
	check("when the log is dropped")
	wantAll(t, db, want)
}

// TestLedger_ReadsWhileMoving counts up two records in one write, again and again, while what was written is moved all the time. No
// count is lost, no read gets a count below one that was acknowledged, and no snapshot has two that differ.
func TestLedger_ReadsWhileMoving(t *testing.T) {
	o := Options{Pepper: "none"}.Restless()
	db := openAt(t, filepath.Join(t.TempDir(), "tollkeeper.db"), o)
	number := func(text []byte) (n int) { n, _ = strconv.Atoi(string(text)); return n }
	one, two := []byte("1"), []byte("2")
	var acknowledged atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	until := func(what string, do func() error) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := do(); err != nil {
					t.Errorf("%s: %v", what, err)
					return
				}
			}
		})
	}
	until("move", func() error { return db.mover.move(context.Background()) })
	until("read", func() error {
		least := int(acknowledged.Load())
		return db.viewLedger(t.Context(), func(r reader) error {
			if n, m := number(r.get(bucketBooks, one)), number(r.get(bucketJournal, two)); n < least || n != m {
				return fmt.Errorf("%d and %d after %d was acknowledged", n, m, least)
			}
			return nil
		})
	})
	until("snapshot", func() error {
		least := int(acknowledged.Load())
		return db.viewAll(t.Context(), func(s *snapshot) error {
			seen := make(map[string]int)
			for _, bucket := range []string{bucketBooks, bucketJournal} {
				if err := s.forEach(bucket, func(k, v []byte) error { seen[string(k)] = number(v); return nil }); err != nil {
					return err
				}
			}
			if seen["1"] < least || seen["1"] != seen["2"] {
				return fmt.Errorf("%v after %d was acknowledged", seen, least)
			}
			return nil
		})
	})
	const counts = 500
	for i := range counts {
		if err := db.ledger.do(t.Context(), func(w *write) error {
			text := []byte(strconv.Itoa(number(w.get(bucketBooks, one)) + 1))
			return errors.Join(w.put(bucketBooks, one, text), w.put(bucketJournal, two, text), w.put(bucketBooks, []byte(fmt.Sprint("k", i%50)), text))
		}); err != nil {
			t.Fatal(err)
		}
		acknowledged.Add(1)
	}
	close(stop)
	wg.Wait()
	if got := records(t, db); got["books 1"] != strconv.Itoa(counts) {
		t.Errorf("%s of %d were counted", got["books 1"], counts)
	}
}

// await returns when a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting until %s", what)
		}
	}
}

// TestViewLedger_MovedMeanwhile has a record leave the overlay after the reading of the file began, which does not show it yet.
func TestViewLedger_MovedMeanwhile(t *testing.T) {
	db := openAt(t, filepath.Join(t.TempDir(), "tollkeeper.db"), calm())
	put(t, db, bucketJournal, "room", strings.Repeat("x", 100_000)) // bbolt cannot map a larger file while one is read
	if err := db.mover.move(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, db, bucketBooks, "k", "v")
	layers := db.overlay.freeze()
	db.overlay.mu.Lock()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := db.viewLedger(t.Context(), func(r reader) error {
			if got := r.get(bucketBooks, []byte("k")); string(got) != "v" {
				t.Errorf("read %q", got)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	await(t, "the file is being read", func() bool { return db.bolt.Stats().OpenTxN > 0 })
	if err := db.commits.do(t.Context(), func(w *write) error { return db.mover.write(w, sorted(layers), layers[0].last) }); err != nil {
		t.Error(err)
	}
	db.overlay.layers = db.overlay.layers[1:]
	db.overlay.drops.Add(1)
	db.overlay.mu.Unlock()
	wg.Wait()
}

// TestViewAll_MovedMeanwhile has a part of later records moved into the file before the reading of the file begins.
func TestViewAll_MovedMeanwhile(t *testing.T) {
	db := openAt(t, filepath.Join(t.TempDir(), "tollkeeper.db"), calm())
	fill := func(value string) {
		for i := range 6 {
			put(t, db, bucketBooks, fmt.Sprint(i), value)
		}
	}
	fill("first")
	if err := db.mover.move(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, db, bucketBooks, "another", "x")
	if err := db.file.commitGate.Acquire(t.Context(), allReads); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if got := records(t, db); len(got) != 7 || got["books 0"] != got["books 5"] {
			t.Errorf("read %v", got)
		}
	})
	await(t, "the snapshot has its layers", func() bool { return len(db.overlay.all()) > 1 })
	if err := db.mover.move(t.Context()); err != nil {
		t.Error(err)
	}
	fill("second")
	db.overlay.takes.Add(1)
	chunk := sorted(db.overlay.freeze())[:3]
	if err := db.commits.do(t.Context(), func(w *write) error { return db.mover.write(w, chunk, 0) }); err != nil {
		t.Error(err)
	}
	db.file.commitGate.Release(allReads)
	wg.Wait()
}
