package bolt

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// File is a file that is open for reading only. Use Inspect, which needs no pepper. Its methods may be called concurrently.
type File struct {
	bolt *bbolt.DB

	mu     sync.Mutex
	read   bool // the write-ahead log was read
	layers []*layer
	fault  error // why it cannot be
}

// Inspect opens an existing file for reading only. No server can start on it until it is closed.
//
// The error is of KindNotFound when there is no file, and ErrInUse when a server uses it: ask that server then. Damage is of
// KindConflict, as in Open, or is left for Checks to find.
func Inspect(path string) (*File, error) {
	isNew, err := checkPath(path)
	if err != nil {
		return nil, err
	}
	if isNew {
		return nil, authz.Errorf(authz.KindNotFound, "there is no file %s", path)
	}
	// There is no point in waiting longer: a server holds its lock for as long as it runs.
	db, err := openFile(path, bbolt.Options{ReadOnly: true, Timeout: time.Nanosecond, OpenFile: os.OpenFile})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, authz.Errorf(authz.KindNotFound, "there is no file %s", path)
	}
	if err != nil {
		return nil, err
	}
	return &File{bolt: db}, nil
}

// CheckPepper returns an error of KindConflict if the file was made with another pepper than the one with this fingerprint.
// A file that is not ours passes: Checks finds that.
func (f *File) CheckPepper(fingerprint string) error {
	tx, err := f.bolt.Begin(false)
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "reading the data file: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	if meta := tx.Bucket([]byte(bucketMeta)); meta != nil {
		return checkPepper(meta, fingerprint)
	}
	return nil
}

// readLog adds what a killed server left in the write-ahead log, without changing it.
func (f *File) readLog(s *snapshot) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.read {
		f.read = true
		o := newOverlay()
		f.fault = readLog(s.tx, f.bolt.Path(), o)
		f.layers = o.all()
	}
	s.layers = f.layers
	return f.fault
}

// Close closes the file.
func (f *File) Close() error {
	if err := f.bolt.Close(); err != nil {
		return authz.Errorf(authz.KindUnavailable, "closing the data file: %w", err)
	}
	return nil
}
