package bolt

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math"
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
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt/wal"
)

// ErrInUse says that another process uses the file.
var ErrInUse = errors.New("in use by another process")

// lockWait is how long Open waits for another process to close the file.
const lockWait = time.Second

// Options are the arguments of Open besides the path.
type Options struct {
	// Pepper is the fingerprint of the pepper that keys are hashed with (apikey.Hasher.Fingerprint). Open refuses a file that was
	// made with another one: none of its keys would be found.
	Pepper string
	// Now is the ledger's clock; nil is time.Now.
	Now func() time.Time
	// Logger gets a line for each disk fault; nil discards.
	Logger *slog.Logger

	openFile func(string, int, os.FileMode) (*os.File, error) // for tests that break the disk
	sizes    sizes                                            // for tests that move often
}

// DB is an open file. Use Open. All methods may be called concurrently.
type DB struct {
	bolt    *bbolt.DB
	handle  *os.File // the file, which bbolt closes
	file    *fileLane
	commits *committer // of file: keys and revocations
	log     *wal.Log
	overlay *overlay
	ledger  *committer // of the log: the ledger
	mover   *mover
	now     func() time.Time
	cache   atomic.Pointer[keyCache] // nil once closed
	views   atomic.Uint64            // how many reads of the file there were
	members *quota.LocalMembers      // that lease from the file

	sharedBooks bool // it has books of a version that kept several buckets in one
}

// viewsPerDrop is how many reads of the file may happen before its pages are dropped from memory. The cache answers frequent
// reads; each of the others leaves up to 64 kB in memory for every page that it touches.
const viewsPerDrop = 1024

// Open opens the file. It makes the file and its directory if there are none. It reads the digests of all keys into memory.
//
// The error is ErrInUse if another process uses the file, of KindUnavailable if the file cannot be read and written, and of
// KindConflict if it is damaged, was not made by this package, or was made with another pepper.
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
	if o.sizes == (sizes{}) {
		o.sizes = usualSizes()
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
	if err := db.openLog(path, o); err != nil {
		_ = db.bolt.Close()
		return nil, err
	}
	go db.commits.run()
	go db.ledger.run()
	go db.mover.run()
	return db, nil
}

// openAndLoad opens a file that exists and reads it, without its log. The committer does not run yet.
func openAndLoad(path string, o Options) (*DB, error) {
	var handle *os.File
	file, err := openFile(path, bbolt.Options{
		Timeout: lockWait, FreelistType: bbolt.FreelistMapType, InitialMmapSize: mapSize(path),
		OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			handle, err = o.openFile(name, flag, mode)
			return handle, err
		},
	})
	if err != nil {
		return nil, err
	}
	db := &DB{bolt: file, handle: handle, now: o.Now, members: quota.NewLocalMembers(o.Now)}
	db.file = newFileLane(file, db.reload, o.Logger, &faults{log: o.Logger})
	db.commits = newCommitter(db.file, o.Logger)
	if err := db.load(o.Pepper); err != nil {
		_ = file.Close()
		return nil, authz.Errorf(authz.KindOf(err), "%s: %w", path, err)
	}
	return db, nil
}

// mapRoom is how much a file can grow while a long read, such as a backup, goes on. To map more of it, bbolt waits until all reads
// have ended, and lets none begin. It costs addresses, and no memory.
const mapRoom = 1 << 30

// mapSize is how much of a file is mapped at first.
func mapSize(path string) int {
	info, err := os.Stat(path)
	if err != nil || math.MaxInt < 1<<40 {
		return 0
	}
	return int(info.Size()) + mapRoom
}

// create makes a new file. If another process makes it meanwhile, that file stays.
func create(path string, o Options) error {
	err := newFile(path, func(temp string) error {
		db, err := openAndLoad(temp, o)
		if err != nil {
			return err
		}
		if err := db.bolt.Close(); err != nil {
			return authz.Errorf(authz.KindUnavailable, "cannot make %s: %w", path, err)
		}
		return nil
	})
	if authz.KindOf(err) == authz.KindExists {
		return nil
	}
	return err
}

// newFile makes a file under another name and gives it its own when it is whole, so that a crash in between leaves no half-made file
// that looks damaged. The error is of KindExists if there is a file of that name by then.
func newFile(path string, fill func(temp string) error) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".tollkeeper-*.new")
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot make %s: %w", path, err)
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	if err := temp.Close(); err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot make %s: %w", path, err)
	}
	if err := fill(temp.Name()); err != nil {
		return err
	}
	err = os.Link(temp.Name(), path)
	switch {
	case errors.Is(err, fs.ErrExist):
		return authz.Errorf(authz.KindExists, "there is a file %s already", path)
	case err != nil:
		return authz.Errorf(authz.KindUnavailable, "cannot make %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// prepare makes the directory, and reports whether there is no file in it yet.
func prepare(path string) (isNew bool, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, authz.Errorf(authz.KindUnavailable, "cannot make the directory for %s: %w", path, err)
	}
	return checkPath(path)
}

// checkPath refuses a path that cannot be a data file, and reports whether there is no file at all.
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
		// A file that lost its content must not pass for a new installation, in which no quota is used.
		return false, authz.Errorf(authz.KindConflict, "%s is empty: restore it from a backup, or remove it to start without any data", path)
	}
	return false, nil
}

// openFile has bbolt open the file. On damaged pages bbolt panics, or reads memory that is not there; both become errors here,
// and the file is closed.
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
	default: // bbolt itself refuses the content
		return nil, authz.Errorf(authz.KindConflict, "%s is damaged or is not a tollkeeper data file: %w", path, err)
	}
}

// load checks that the file is whole and ours, and fills the cache.
func (db *DB) load(pepper string) error {
	if err := db.view(context.Background(), checkPages); err != nil {
		return err
	}
	if err := db.firstWrite(func(w *write) error { return ensureFormat(w, pepper) }); err != nil {
		return err
	}
	if err := db.view(context.Background(), func(tx *bbolt.Tx) error {
		if !isCurrent(tx) {
			db.commits.log.Info("upgrading an older data file: a million keys take up to half a minute")
		}
		return nil
	}); err != nil {
		return err
	}
	for _, upgrade := range []func(*write) (more bool, err error){gatherBooks, upgradeRecords} {
		for more := true; more; {
			if err := db.firstWrite(func(w *write) (err error) {
				more, err = upgrade(w)
				return err
			}); err != nil {
				return err
			}
		}
	}
	if err := db.view(context.Background(), func(tx *bbolt.Tx) error {
		db.sharedBooks = hasBooks(tx)
		return nil
	}); err != nil {
		return err
	}
	return db.reload()
}

// firstWrite makes a write before the committer runs. It goes through the same steps as every later one.
func (db *DB) firstWrite(run func(*write) error) error {
	first := &op{run: run, done: make(chan error, 1)}
	db.commits.commit([]*op{first})
	return <-first.done
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

// Close finishes the writes that wait, refuses new ones, and closes the file. Reads fail from then on. The write-ahead log is moved
// into the file and removed. If that fails, the next Open reads the log.
func (db *DB) Close() error {
	if !db.ledger.stop() {
		return nil
	}
	db.mover.stop()
	err := db.closeLog()
	db.commits.stop()
	db.cache.Store(nil)
	if db.file.broken != nil {
		return db.file.broken // bbolt cannot close the file: the process has to end
	}
	if closeErr := db.bolt.Close(); closeErr != nil {
		err = errors.Join(err, authz.Errorf(authz.KindUnavailable, "closing the data file: %w", closeErr))
	}
	return err
}

// view runs a function in a read transaction, which sees only what is durable.
func (db *DB) view(ctx context.Context, read func(*bbolt.Tx) error) error {
	return viewTx(ctx, db.file.beginRead, func(tx *bbolt.Tx) error {
		if db.views.Add(1)%viewsPerDrop == 0 {
			defer dropPages(tx)
		}
		return read(tx)
	})
}

// viewFile is viewTx for a file that only this process uses, or nobody writes to.
func viewFile(ctx context.Context, file *bbolt.DB, read func(*bbolt.Tx) error) error {
	return viewTx(ctx, func(context.Context) (*bbolt.Tx, error) { return file.Begin(false) }, read)
}

// viewTx runs a function in a read transaction that begin starts. A panic on damaged pages becomes an error.
func viewTx(ctx context.Context, begin func(context.Context) (*bbolt.Tx, error), read func(*bbolt.Tx) error) (err error) {
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
