package bolt

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
)

// disk is the files of a DB, whose descriptors can be pointed elsewhere while they are in use.
type disk struct {
	t *testing.T

	mu     sync.Mutex
	broken *os.File // where all writes go, nil if the disk works
	files  []*diskFile
}

type diskFile struct {
	file *os.File
	real int // a descriptor of what it was opened for
}

func (d *disk) open(name string, flag int, mode os.FileMode) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := os.OpenFile(name, flag, mode)
	if err != nil {
		return nil, err
	}
	real, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	d.t.Cleanup(func() { _ = syscall.Close(real) })
	d.files = append(d.files, &diskFile{f, real})
	if d.broken != nil {
		err = syscall.Dup3(int(d.broken.Fd()), int(f.Fd()), syscall.O_CLOEXEC)
	}
	return f, err
}

// become sends every write to another file until the returned function is called.
func (d *disk) become(path string) (repair func()) {
	d.t.Helper()
	flag := os.O_RDONLY
	if path == "/dev/full" {
		flag = os.O_WRONLY
	}
	other, err := os.OpenFile(path, flag, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	d.broken = other
	d.mu.Unlock()
	d.point(func(*diskFile) int { return int(other.Fd()) })
	return func() {
		d.mu.Lock()
		d.broken = nil
		d.mu.Unlock()
		d.point(func(f *diskFile) int { return f.real })
		_ = other.Close()
	}
}

// point has the files that are open use other descriptors.
func (d *disk) point(to func(*diskFile) int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.files {
		if fd := int(f.file.Fd()); fd >= 0 { // else it was closed
			if err := syscall.Dup3(to(f), fd, syscall.O_CLOEXEC); err != nil {
				d.t.Fatal(err)
			}
		}
	}
}

// named returns the file that was opened last under a name.
func (d *disk) named(name string) (found *diskFile) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.files {
		if f.file.Name() == name {
			found = f
		}
	}
	return found
}

// TestCommitter_DiskFaults breaks the disk under an open file: writes say so, reads go on, no refused write is seen, and all
// works again when the disk does. The log has one line for the beginning and one for the end.
func TestCommitter_DiskFaults(t *testing.T) {
	for name, path := range map[string]string{"full": "/dev/full", "read-only": ""} {
		t.Run(name, func(t *testing.T) {
			d := &disk{t: t}
			var log bytes.Buffer
			db := openFresh(t, Options{openFile: d.open, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if path == "" {
				path = db.bolt.Path()
			}
			keys, ctx := db.Keys(), t.Context()
			if _, err := keys.CreateAccount(ctx, apikey.Account{ID: "acme"}); err != nil {
				t.Fatal(err)
			}
			l := authz.Limit{Name: "requests", Units: 10, Window: authz.WindowNone}
			lease := quotatest.Ask{Node: "a", Seq: 1, Limit: l, Want: 4}
			for round := range 2 {
				repair := d.become(path)
				for range 2 {
					id := fmt.Sprint("key_", round)
					_, err := keys.CreateKey(ctx, apikey.Key{ID: id, Account: "acme", Digest: apikey.Hasher{}.Text(id)})
					if err == nil || authz.KindOf(err) != authz.KindUnavailable {
						t.Errorf("write to a broken disk: %v", err)
					}
					if _, err = keys.Key(ctx, id); authz.KindOf(err) != authz.KindNotFound {
						t.Errorf("a write that was refused is seen: %v", err)
					}
					if _, err = lease.Send(ctx, db.Ledger()); authz.KindOf(err) != authz.KindUnavailable || err == nil {
						t.Errorf("lease from a broken disk: %v", err)
					}
				}
				if _, err := keys.Account(ctx, "acme"); err != nil {
					t.Errorf("read: %v", err)
				}
				repair()
				id := fmt.Sprint("key_", round)
				if _, err := keys.CreateKey(ctx, apikey.Key{ID: id, Account: "acme", Digest: apikey.Hasher{}.Text(id)}); err != nil {
					t.Fatalf("write after the disk was repaired: %v", err)
				}
				got, err := lease.Send(ctx, db.Ledger())
				if err != nil || got.Held != 4*int64(round+1) {
					t.Fatalf("lease after the disk was repaired: %+v, %v", got, err)
				}
				lease.Seq++
				if text := log.String(); strings.Count(text, "level=ERROR") != round+1 || strings.Count(text, "\n") != 2*(round+1) {
					t.Fatalf("want one line when it begins and one when it ends, in each of %d rounds:\n%s", round+1, text)
				}
				if err := db.Check(ctx); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestMover_DiskFull fills the disk for the file, and not for the log: the ledger goes on until the log is too large, and is closed
// then. When there is room again, everything is moved and the ledger is open, without a restart.
func TestMover_DiskFull(t *testing.T) {
	d := &disk{t: t}
	o := calm()
	o.sizes = sizes{overlay: 4 << 10, log: 64 << 10, segment: 8 << 10, chunk: 7, behind: 2}
	o.openFile = d.open
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	db := openAt(t, path, o)
	want := make(map[string]string)
	fill := func(n int) (err error) {
		for i := 0; i < n && err == nil; i++ {
			key := fmt.Sprint(len(want))
			err = db.ledger.do(t.Context(), func(w *write) error { return w.put(bucketBooks, []byte(key), []byte("value")) })
			if err == nil {
				want["books "+key] = "value"
			}
		}
		return err
	}
	if err := fill(10); err != nil {
		t.Fatal(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	data := d.named(path)
	if err := syscall.Dup3(int(full.Fd()), int(data.file.Fd()), syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := fill(10_000); authz.KindOf(err) != authz.KindUnavailable || !strings.Contains(err.Error(), "is full") || len(want) < 20 {
		t.Errorf("%d were written: %v", len(want), err)
	}
	wantAll(t, db, want)
	if err := syscall.Dup3(data.real, int(data.file.Fd()), syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := db.mover.move(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := fill(100); err != nil {
		t.Error(err)
	}
	wantAll(t, db, want)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	wantAll(t, openAt(t, path, calm()), want)
}
