// Package bolt keeps keys, revocations and quotas in one file, with bbolt: nothing to install, and safe against crashes.
//
// Every write is on disk before it is acknowledged. Writes that wait at the same time share one transaction and so one
// fsync (commit.go). The keys and accounts that are in use are also held in memory, so that looking one up costs no I/O
// (tables.go). Memory is changed after the disk and before the acknowledgement: who was told that a key is switched off
// never sees it switched on again.
//
// The file belongs to one process at a time. Its buckets are listed in layout.go.
package bolt

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// ErrInUse says that another process has the file.
var ErrInUse = errors.New("in use by another process")

// lockWait is how long Open waits for another process to let go of the file.
const lockWait = time.Second

// Options are what Open needs to know besides the path.
type Options struct {
	// Pepper is the fingerprint of the pepper that keys are hashed with (apikey.Hasher.Fingerprint). A file keeps
	// the one that it was made with and is not opened with another, under which none of its keys would be found.
	Pepper string
	// Now is the ledger's clock; nil is time.Now.
	Now func() time.Time
	// Logger is told about disk faults; nil discards.
	Logger *slog.Logger

	openFile func(string, int, os.FileMode) (*os.File, error) // for tests that break the disk
}

// DB is an open file. Use Open. All methods may be called concurrently.
type DB struct {
	bolt    *bbolt.DB
	commits *committer
	now     func() time.Time
	cache   atomic.Pointer[keyCache] // nil once closed
	views   atomic.Uint64
	nodes   quota.LocalNodes // that lease from the file
}

// viewsPerDrop is after how many reads of the file its pages leave the memory. What is asked for often is kept elsewhere
// (tables), and each of the others leaves up to 64 kB in memory for every page that it touches.
const viewsPerDrop = 1024

// Open opens the file, or makes it, with its directory, where there is none. It reads the digests of all keys into memory.
//
// The error is ErrInUse when another process uses the file, of KindUnavailable when it cannot be read and written, and of
// KindConflict when it is damaged, was not made by this package, or was made with another pepper.
func Open(path string, o Options) (*DB, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.openFile == nil {
		o.openFile = os.OpenFile
	}
	isNew, err := prepare(path)
	if err != nil {
		return nil, err
	}
	if isNew {
		if err := create(path, o); err != nil {
			return nil, err
		}
	}
	db, err := openAndLoad(path, o)
	if err != nil {
		return nil, err
	}
	go db.commits.run()
	return db, nil
}

// openAndLoad opens a file that is there and reads it. Nothing is committed yet.
func openAndLoad(path string, o Options) (*DB, error) {
	file, err := openFile(path, bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType, OpenFile: o.openFile})
	if err != nil {
		return nil, err
	}
	db := &DB{bolt: file, now: o.Now}
	db.commits = newCommitter(file, db.reload, o.Logger)
	if err := db.load(o.Pepper); err != nil {
		_ = file.Close()
		return nil, authz.Errorf(authz.KindOf(err), "%s: %w", path, err)
	}
	return db, nil
}

// create makes a file under another name and gives it its own when it is whole, so that a crash in between leaves
// nothing behind that has to be told from a damaged file. Where another process made the file meanwhile, that one stays.
func create(path string, o Options) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".tollkeeper-*.new")
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot make %s: %w", path, err)
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	if err := temp.Close(); err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot make %s: %w", path, err)
	}
	db, err := openAndLoad(temp.Name(), o)
	if err != nil {
		return err
	}
	if err := db.bolt.Close(); err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot make %s: %w", path, err)
	}
	if err := os.Link(temp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return authz.Errorf(authz.KindUnavailable, "cannot make %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// prepare makes the directory and reports whether the file has yet to be made.
func prepare(path string) (isNew bool, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, authz.Errorf(authz.KindUnavailable, "cannot make the directory for %s: %w", path, err)
	}
	return checkPath(path)
}

// look refuses what cannot be a file of ours, and reports whether there is nothing at all.
func checkPath(path string) (isNew bool, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, authz.Errorf(authz.KindUnavailable, "cannot look at %s: %w", path, err)
	case !info.Mode().IsRegular():
		return false, authz.Errorf(authz.KindConflict, "%s is not a file: give the path of a file, which is made if it is not there", path)
	case info.Size() == 0:
		// A file that lost its content must not pass for a new installation in which nobody has used anything.
		return false, authz.Errorf(authz.KindConflict, "%s is empty: restore it from a backup, or remove it to start without any data", path)
	}
	return false, nil
}

// openFile lets bbolt open the file. On damaged pages bbolt panics, or reads memory that is not there; both become
// errors here, and the file is let go of.
func openFile(path string, o bbolt.Options) (db *bbolt.DB, err error) {
	var file *os.File
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			releaseFile(file)
			db, err = nil, authz.Errorf(authz.KindConflict, "%s is damaged: %v", path, p)
		}
	}()
	open := o.OpenFile
	o.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := open(name, flag, mode)
		file = f
		return f, err
	}
	db, err = bbolt.Open(path, 0o600, &o)
	var system syscall.Errno
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, authz.Errorf(authz.KindUnavailable, "%s is %w", path, ErrInUse)
	case errors.As(err, &system):
		return nil, authz.Errorf(authz.KindUnavailable, "cannot open %s: %w", path, err)
	default: // what bbolt itself objects to is the content
		return nil, authz.Errorf(authz.KindConflict, "%s is damaged or is not a tollkeeper data file: %w", path, err)
	}
}

// start checks that the file is whole and ours, and reads it into memory.
func (db *DB) load(pepper string) error {
	if err := db.view(context.Background(), checkPages); err != nil {
		return err
	}
	// No goroutine commits yet: the identity goes through the same steps as every later write.
	first := &op{run: func(w *write) error { return ensureFormat(w, pepper) }, done: make(chan error, 1)}
	db.commits.commit([]*op{first})
	if err := <-first.done; err != nil {
		return err
	}
	return db.reload()
}

// syncDir makes the name of a new file durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot sync the directory: %w", err)
	}
	return nil
}

// Close finishes the writes that wait, refuses new ones, and lets go of the file. Reads fail from then on.
func (db *DB) Close() error {
	if !db.commits.stop() {
		return nil
	}
	db.cache.Store(nil)
	if db.commits.broken != nil {
		return db.commits.broken // the file is let go of when the process ends
	}
	if err := db.bolt.Close(); err != nil {
		return authz.Errorf(authz.KindUnavailable, "closing the data file: %w", err)
	}
	return nil
}

// view runs a function on what is durable now.
func (db *DB) view(ctx context.Context, read func(*bbolt.Tx) error) error {
	return view(ctx, db.commits.begin, func(tx *bbolt.Tx) error {
		if db.views.Add(1)%viewsPerDrop == 0 {
			defer dropPages(tx)
		}
		return read(tx)
	})
}

func view(ctx context.Context, begin func(context.Context) (*bbolt.Tx, error), read func(*bbolt.Tx) error) (err error) {
	if err := ctx.Err(); err != nil {
		return authz.Errorf(authz.KindUnavailable, "not read: %w", err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = authz.Errorf(authz.KindUnavailable, "the data file is damaged: %v", p)
		}
	}()
	tx, err := begin(ctx)
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot read: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	return read(tx)
}
