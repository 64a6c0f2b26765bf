package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrNotRunning says that no server runs on a data directory.
var ErrNotRunning = errors.New("no server runs on the data directory")

// Announcement is the file in the data directory that tells where the running server listens.
type Announcement struct {
	path string
	file *os.File // open and locked for as long as the server runs
}

// Announce writes the address of the server into its data directory. The file is locked until Close, and the lock ends with
// the process. A file without a lock, left by a crash or copied with the directory, is ignored: another server may have the
// port by now.
func Announce(dir, address string) (_ *Announcement, err error) {
	path := filepath.Join(dir, AddressFile)
	if there, err := Running(dir); err == nil {
		return nil, fmt.Errorf("the server at %s runs on %s already", there, dir)
	}
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(address + "\n")
	if err == nil {
		err = lock(f)
	}
	if err == nil {
		err = os.Rename(path+".new", path) // so that the file is whole and locked when it appears
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &Announcement{path, f}, nil
}

// Close removes the file, unless a successor has replaced it.
func (a *Announcement) Close() error {
	ours, err := a.file.Stat()
	if now, err2 := os.Lstat(a.path); err == nil && err2 == nil && os.SameFile(ours, now) {
		err = os.Remove(a.path)
	}
	return errors.Join(err, a.file.Close())
}

// Running returns the address of the server that runs on a data directory. The error is ErrNotRunning if none does.
func Running(dir string) (string, error) {
	f, err := os.Open(filepath.Join(dir, AddressFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrNotRunning
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	if !locked(f) {
		return "", ErrNotRunning
	}
	raw, err := os.ReadFile(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrNotRunning
	}
	return strings.TrimSpace(string(raw)), err
}
