package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
)

// calm are options with which nothing is moved unless a test does it, in many small transactions.
func calm() Options {
	o := Options{Pepper: "none", sizes: usualSizes()}
	o.sizes.chunk = 3
	return o
}

func openAt(tb testing.TB, path string, o Options) *DB {
	tb.Helper()
	db, err := Open(path, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

// abandon ends the goroutines of a DB and leaves its files as a killed process does.
func abandon(db *DB) {
	if db.ledger.stop() {
		db.mover.stop()
		db.commits.stop()
		_ = db.log.Close()
		_ = db.bolt.Close()
	}
}

// killed copies the files of a DB that does nothing at the moment, as if its process had been killed.
func killed(tb testing.TB, db *DB) (path string) {
	tb.Helper()
	dir := tb.TempDir()
	path = filepath.Join(dir, "tollkeeper.db")
	content, err := os.ReadFile(db.bolt.Path())
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	if _, err := os.Stat(logFolder(db.bolt.Path())); err == nil {
		if err := os.CopyFS(logFolder(path), os.DirFS(logFolder(db.bolt.Path()))); err != nil {
			tb.Fatal(err)
		}
	}
	return path
}

// put writes a record of the ledger, or deletes it if the value is "".
func put(tb testing.TB, db *DB, bucket, key, value string) {
	tb.Helper()
	if err := db.ledger.do(context.Background(), func(w *write) error {
		if value == "" {
			return w.delete(bucket, []byte(key))
		}
		return w.put(bucket, []byte(key), []byte(value))
	}); err != nil {
		tb.Fatal(err)
	}
}

// records are all that a DB has in the buckets of the ledger, by bucket and key.
func records(tb testing.TB, db *DB) map[string]string {
	tb.Helper()
	out := make(map[string]string)
	if err := db.viewAll(context.Background(), func(s *snapshot) error {
		for _, bucket := range logged[1:] {
			if err := s.forEach(bucket, func(k, v []byte) error {
				if out[bucket+" "+string(k)] != "" {
					tb.Errorf("%q is there twice", k)
				}
				out[bucket+" "+string(k)] = string(v)
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		tb.Fatal(err)
	}
	return out
}

func wantAll(tb testing.TB, db *DB, want map[string]string) {
	tb.Helper()
	if got := records(tb, db); !maps.Equal(got, want) {
		tb.Errorf("there is\n%v\nwant\n%v", got, want)
	}
	for name, value := range want {
		bucket, key, _ := strings.Cut(name, " ")
		if err := db.viewLedger(context.Background(), func(r reader) error {
			if got := r.get(bucket, []byte(key)); string(got) != value {
				tb.Errorf("%s is %q, want %q", name, got, value)
			}
			return nil
		}); err != nil {
			tb.Fatal(err)
		}
	}
}

// TestLog_AgreesWithAMap writes, moves, closes and kills at random, and compares with a map after each step.
func TestLog_AgreesWithAMap(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	db := openAt(t, path, calm())
	want := make(map[string]string)
	for step := range 250 {
		switch rng.IntN(8) {
		default:
			for range 1 + rng.IntN(6) {
				bucket, key := logged[1+rng.IntN(len(logged)-1)], fmt.Sprint(rng.IntN(13))
				value := strings.Repeat("v", []int{0, 1, 30, 5000}[rng.IntN(4)])
				put(t, db, bucket, key, value)
				if want[bucket+" "+key] = value; value == "" {
					delete(want, bucket+" "+key)
				}
			}
		case 0:
			if err := db.mover.move(t.Context()); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(logFolder(path)); err == nil {
				t.Fatal("the log is there after the file was closed")
			}
			db = openAt(t, path, calm())
		case 2:
			abandon(db)
			db = openAt(t, path, calm())
		}
		if wantAll(t, db, want); t.Failed() {
			t.Fatalf("step %d with seed %d", step, seed)
		}
	}
}

// TestOpen_LogIsGone opens a file that was copied without its log: the last writes would be lost.
func TestOpen_LogIsGone(t *testing.T) {
	db := openAt(t, filepath.Join(t.TempDir(), "tollkeeper.db"), calm())
	put(t, db, bucketBooks, "moved", "{}")
	if err := db.mover.move(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, db, bucketBooks, "in the log", "{}")
	path := killed(t, db)
	if err := os.RemoveAll(logFolder(path)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, calm()); authz.KindOf(err) != authz.KindConflict || !strings.Contains(err.Error(), logFolder(path)) {
		t.Errorf("without its log: %v", err)
	}
	if err := checkFile(t, path); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("inspected without its log: %v", err)
	}
	if err := os.Mkdir(logFolder(path), 0o700); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o := calm()
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	again := openAt(t, path, o)
	wantAll(t, again, map[string]string{"books moved": "{}"})
	if !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("nothing is said about what is lost: %s", log.String())
	}
}

// checkFile runs the checks of a file that no server uses, and returns the first error.
func checkFile(t *testing.T, path string) error {
	t.Helper()
	f, err := Inspect(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for _, c := range f.Checks() {
		if err := c.Run(t.Context()); err != nil {
			return err
		}
	}
	return nil
}

// TestOpen_LogOfAnotherState has the log of a killed server beside a backup that was made before, or beside another file.
func TestOpen_LogOfAnotherState(t *testing.T) {
	db := openAt(t, filepath.Join(t.TempDir(), "tollkeeper.db"), calm())
	backup, err := os.ReadFile(db.bolt.Path())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // so that segments are dropped
		put(t, db, bucketBooks, "a", strings.Repeat("x", 3<<20))
		if err := db.mover.move(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	put(t, db, bucketBooks, "b", "{}")
	path := killed(t, db)
	if err := os.WriteFile(path, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, calm()); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("with an older backup: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, calm()); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("with a new file: %v", err)
	}
}

// TestOpen_OlderLog has a log from before the last move beside the file of a killed server.
func TestOpen_OlderLog(t *testing.T) {
	db := openAt(t, filepath.Join(t.TempDir(), "tollkeeper.db"), calm())
	put(t, db, bucketBooks, "a", "{}")
	older := killed(t, db)
	put(t, db, bucketBooks, "b", "{}")
	if err := db.mover.move(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, db, bucketBooks, "lost", "{}")
	path := killed(t, db)
	if err := os.RemoveAll(logFolder(path)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(logFolder(older), logFolder(path)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, calm()); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("opened: %v", err)
	}
	if err := checkFile(t, path); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("inspected: %v", err)
	}
}

// TestOpen_OldFormat opens a file of the version before the log, which that version refuses from then on.
func TestOpen_OldFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	db := openAt(t, path, calm())
	bucket := quota.Bucket{Per: authz.PerKey, Holder: "h", Limit: "l"}
	l := authz.Limit{Name: "l", Units: 10, Window: authz.WindowNone, Per: authz.PerKey}
	if _, err := (quotatest.Ask{Node: "n", Bucket: bucket, Limit: l, Want: 4}).Send(t.Context(), db.Ledger()); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(raw.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte(bucketMeta))
		return errors.Join(meta.Put([]byte("format"), []byte(oldFormat)), meta.Delete(metaLogID), meta.Delete(metaLogApplied))
	}), raw.Close()); err != nil {
		t.Fatal(err)
	}
	if err := checkFile(t, path); err != nil {
		t.Errorf("inspected before the upgrade: %v", err)
	}
	db = openAt(t, path, calm())
	if b, err := db.Ledger().Balance(t.Context(), bucket, l); err != nil || b.Granted != 4 {
		t.Errorf("after the upgrade: %+v, %v", b, err)
	}
	if !has(t, db, "log_id") {
		t.Error("it has no log")
	}
	if err := db.view(t.Context(), func(tx *bbolt.Tx) error {
		if got := tx.Bucket([]byte(bucketMeta)).Get([]byte("format")); string(got) != format {
			t.Errorf("the format is %q", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestWrite_OneLane refuses to write what belongs to the other lane.
func TestWrite_OneLane(t *testing.T) {
	db := openAt(t, filepath.Join(t.TempDir(), "tollkeeper.db"), calm())
	for _, bucket := range bucketNames() {
		for lane, c := range map[string]*committer{"file": db.commits, "log": db.ledger} {
			err := c.do(t.Context(), func(w *write) error { return w.put(bucket, []byte("k"), []byte("v")) })
			if mine := (lane == "log") == (codeOf(bucket) != 0); mine != (err == nil) {
				t.Errorf("%q in the lane of the %s: %v", bucket, lane, err)
			}
			err = c.do(t.Context(), func(w *write) error { return w.delete(bucket, []byte("k")) })
			if mine := (lane == "log") == (codeOf(bucket) != 0); mine != (err == nil) {
				t.Errorf("deleting from %q in the lane of the %s: %v", bucket, lane, err)
			}
		}
	}
}

// TestLayer_OneHash has keys that share a hash.
func TestLayer_OneHash(t *testing.T) {
	a, b := []byte("a"), []byte("b")
	l := newLayer()
	add := func(key []byte, value string) {
		if err := l.add(appendChange(nil, &change{bucket: codeBooks, key: key, value: []byte(value)})); err != nil {
			t.Fatal(err)
		}
	}
	add(a, "1")
	l.index[hashOf(codeBooks, b)] = l.index[hashOf(codeBooks, a)]
	add(b, "2")
	add(b, "3")
	if c, ok := l.find(hashOf(codeBooks, b), codeBooks, b); !ok || string(c.value) != "3" {
		t.Errorf("%v %q", ok, c.value)
	}
	if c, ok := l.find(hashOf(codeBooks, a), codeBooks, a); !ok || string(c.value) != "1" {
		t.Errorf("%v %q", ok, c.value)
	}
	if _, ok := l.find(hashOf(codeBooks, b), codeSettled, b); ok {
		t.Error("found in another bucket")
	}
	var batch batch
	batch.reset(nil)
	for _, c := range []change{{bucket: codeBooks, key: a, value: []byte("1")}, {bucket: codeBooks, key: b, value: []byte("2")}} {
		batch.index[hashOf(codeBooks, b)] = 0
		batch.add(&c)
	}
	for key, want := range map[string]string{"a": "1", "b": "2"} {
		if got := batch.get(bucketBooks, []byte(key)); string(got) != want {
			t.Errorf("%s is %q", key, got)
		}
	}
}

// FuzzReadChange reads damaged records: nothing panics, and what is read can be written again.
func FuzzReadChange(f *testing.F) {
	f.Add(appendChange(nil, &change{bucket: codeJournal, key: []byte("key"), value: []byte("value")}))
	f.Add(appendChange(nil, &change{bucket: codeSettledAt, deleted: true, key: []byte("key")}))
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		c, size, ok := readChange(in)
		if !ok {
			return
		}
		again, _, ok := readChange(appendChange(nil, &c))
		if !ok || size > len(in) || !again.is(c.bucket, c.key) || !bytes.Equal(again.value, c.value) || again.deleted != c.deleted {
			t.Errorf("%+v, %+v", c, again)
		}
	})
}
