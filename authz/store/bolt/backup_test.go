package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
)

// slowly is a writer that lets a function run after each write.
type slowly struct {
	bytes.Buffer
	each func()
}

func (s *slowly) Write(p []byte) (int, error) {
	s.each()
	return s.Buffer.Write(p)
}

func importKeys(t *testing.T, db *DB, name string, n int) {
	t.Helper()
	var keys []apikey.Key
	for i := range n {
		id := fmt.Sprint(name, " ", i)
		keys = append(keys, apikey.Key{ID: id, Account: "acme", Digest: apikey.Hasher{}.Text(id)})
	}
	if _, err := db.Keys().Import(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
}

// ask leases from the buckets of so many holders.
func askAll(t *testing.T, db *DB, seq uint64, holders int) {
	t.Helper()
	l := authz.Limit{Name: "requests", Units: 10, Window: authz.WindowHour}
	for i := range holders {
		if _, err := (quotatest.Ask{Node: "a", Seq: seq, Bucket: quota.Bucket{Holder: fmt.Sprint(i)}, Limit: l, Want: 1}.Send(t.Context(), db.Ledger())); err != nil {
			t.Fatal(err)
		}
	}
}

// restored restores a backup, and returns the path of the file.
func restored(t *testing.T, backup []byte) string {
	t.Helper()
	file, path := filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "new", "tollkeeper.db")
	if err := os.WriteFile(file, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), file, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBackup_OfALiveFile has every kind of write go on between the parts of a backup. It has what was acknowledged before it began, of
// the file and of the write-ahead log, and nothing later. Writes and reads wait for nothing, also when the file outgrows its first map.
func TestBackup_OfALiveFile(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	db, err := Open(path, Options{Pepper: "p", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	importKeys(t, db, "before", 10_000)
	askAll(t, db, 1, 50)
	if err := db.mover.move(t.Context()); err != nil {
		t.Fatal(err)
	}
	askAll(t, db, 2, 20)

	before := filepath.Join(t.TempDir(), "tollkeeper.db")
	copyTree(t, path, before)
	copyTree(t, logFolder(path), logFolder(before))
	want := sumsOf(t, before)

	parts := 0
	out := &slowly{each: func() {
		parts++
		importKeys(t, db, fmt.Sprint("while ", parts), 5_000)
		askAll(t, db, uint64(2+parts), 50)
		if err := db.mover.move(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := db.Keys().Key(t.Context(), "before 7"); err != nil {
			t.Error(err)
		}
	}}
	if err := db.Backup(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	if parts < 3 {
		t.Fatalf("it was written in %d parts", parts)
	}
	got := restored(t, out.Bytes())
	if sums := sumsOf(t, got); !maps.Equal(sums, want) {
		t.Errorf("restored: %v, want %v", sums, want)
	}
	again, err := Open(got, Options{Pepper: "p"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if err := again.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := again.log.Check(); err != nil {
		t.Error(err)
	}
}

// TestBackup_OfAKilledServer has what is in the write-ahead log.
func TestBackup_OfAKilledServer(t *testing.T) {
	db := openFresh(t, Options{})
	importKeys(t, db, "k", 10)
	askAll(t, db, 1, 5)
	killed := filepath.Join(t.TempDir(), "tollkeeper.db")
	copyTree(t, db.bolt.Path(), killed)
	copyTree(t, logFolder(db.bolt.Path()), logFolder(killed))
	file, err := Inspect(killed)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := errors.Join(file.Backup(t.Context(), &out, time.Now()), file.Close()); err != nil {
		t.Fatal(err)
	}
	if got, want := sumsOf(t, restored(t, out.Bytes())), sumsOf(t, killed); !maps.Equal(got, want) {
		t.Errorf("restored: %v, want %v", got, want)
	}
}

// TestRestore_Refuses restores no backup that is damaged or not whole, and writes over nothing.
func TestRestore_Refuses(t *testing.T) {
	db := openFresh(t, Options{Pepper: "p"})
	importKeys(t, db, "k", 100)
	askAll(t, db, 1, 5)
	var out bytes.Buffer
	if err := db.Backup(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	sound := out.Bytes()
	info, err := VerifyBackup(bytes.NewReader(sound))
	if err != nil || info.Pepper != "p" || time.Since(info.At) > time.Hour {
		t.Errorf("%+v, %v", info, err)
	}
	refused := func(what string, backup []byte) {
		t.Helper()
		if _, err := VerifyBackup(bytes.NewReader(backup)); authz.KindOf(err) != authz.KindConflict || err == nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("nothing", nil)
	refused("a data file", bytes.Repeat([]byte("x"), 1000))
	for size := 1; size < len(sound); size += max(1, min(size, len(sound)-size)/3) {
		refused(fmt.Sprint("cut at ", size), sound[:size])
		changed := bytes.Clone(sound)
		changed[size] ^= 4
		refused(fmt.Sprint("changed at ", size), changed)
	}
	refused("more than a backup", append(bytes.Clone(sound), 0))

	dir := t.TempDir()
	file, path := filepath.Join(dir, "backup"), filepath.Join(dir, "data", "tollkeeper.db")
	if err := os.WriteFile(file, sound[:len(sound)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), file, path); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("half a backup: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a backup left something: %v", err)
	}
	if err := os.WriteFile(file, sound, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), file, path); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), file, path); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("over a data file: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(logFolder(path), "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), file, path); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("beside a write-ahead log: %v", err)
	}
}

// TestBackup_EndsWithItsContext ends a backup whose reader is gone.
func TestBackup_EndsWithItsContext(t *testing.T) {
	db := openFresh(t, Options{})
	importKeys(t, db, "k", 20_000)
	ctx, cancel := context.WithCancel(t.Context())
	if err := db.Backup(ctx, &slowly{each: cancel}); !errors.Is(err, context.Canceled) || authz.KindOf(err) != authz.KindUnavailable {
		t.Errorf("a backup that is cancelled: %v", err)
	}
	if err := db.Backup(t.Context(), io.Discard); err != nil {
		t.Error(err)
	}
}
