package decisionlog

import (
	"io"
	"log/slog"
	"os"
)

// File is a log file that other programs, such as logrotate, may move, remove or empty at any time. Lines go to the file that
// has that name now. It belongs to one Log and is not safe for concurrent use.
type File struct {
	path    string
	file    *os.File
	fresh   bool // this process has not written to it yet
	failing bool
	log     *slog.Logger
}

// OpenFile opens a file for appending. It creates the file if there is none.
func OpenFile(path string, log *slog.Logger) (*File, error) {
	file, err := appendTo(path)
	if err != nil {
		return nil, err
	}
	return &File{path: path, file: file, fresh: true, log: log}, nil
}

// appendTo opens a file in append mode, so that there is no hole in it after another program has emptied it.
func appendTo(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

func (f *File) Write(p []byte) (int, error) { return f.file.Write(p) }

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

// follow opens the file again if it was moved or removed. If that fails, lines still go to the old file. It returns whether the
// file ends with half a line.
func (f *File) follow() (torn bool) {
	was, err := f.file.Stat()
	if err != nil || !was.Mode().IsRegular() { // pipes and devices are not rotated
		return false
	}
	if now, err := os.Stat(f.path); err != nil || !os.SameFile(was, now) {
		next, err := appendTo(f.path)
		if err != nil {
			if !f.failing {
				f.log.Error("decision log was moved and cannot be opened again: decisions still go to the file that was moved", "error", err)
			}
			f.failing = true
			return false
		}
		_ = f.file.Close()
		f.file, f.fresh, f.failing = next, true, false
		f.log.Info("decision log opened again: its file was moved or removed", "path", f.path)
	}
	if !f.fresh {
		return false
	}
	f.fresh = false
	return cutOff(f.path)
}

// cutOff reports whether a file ends with half a line, as after a crash.
func cutOff(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false // this process may be allowed to write it but not to read it
	}
	defer func() { _ = f.Close() }()
	var last [1]byte
	if _, err := f.Seek(-1, io.SeekEnd); err != nil {
		return false // it is empty
	}
	_, err = io.ReadFull(f, last[:])
	return err == nil && last[0] != '\n'
}
