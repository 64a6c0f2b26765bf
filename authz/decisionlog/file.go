package decisionlog

import (
	"io"
	"log/slog"
	"os"
)

// File is a log file that others may move, remove or empty while it is written to, as logrotate does. Lines go to whatever
// has its name. It is for one Log, and not safe for concurrent use.
type File struct {
	path    string
	file    *os.File
	fresh   bool // nothing of ours was written to it yet
	failing bool
	log     *slog.Logger
}

// OpenFile opens a file to append to, and makes it if it is not there.
func OpenFile(path string, log *slog.Logger) (*File, error) {
	file, err := appendTo(path)
	if err != nil {
		return nil, err
	}
	return &File{path: path, file: file, fresh: true, log: log}, nil
}

// appendTo opens a file for appending, so that whoever empties it does not leave a hole.
func appendTo(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

func (f *File) Write(p []byte) (int, error) { return f.file.Write(p) }

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

// follow opens the file anew if it is not the one of its name any more. If that fails, lines go on to where the old one
// was moved to. It returns whether what is written next must not go on behind what is there: the end of a line is missing.
func (f *File) follow() (torn bool) {
	was, err := f.file.Stat()
	if err != nil || !was.Mode().IsRegular() { // what is no file is not moved
		return false
	}
	if now, err := os.Stat(f.path); err != nil || !os.SameFile(was, now) {
		next, err := appendTo(f.path)
		if err != nil {
			if !f.failing {
				f.log.Error("decision log was moved and cannot be opened anew: decisions go on into the file that was moved", "error", err)
			}
			f.failing = true
			return false
		}
		_ = f.file.Close()
		f.file, f.fresh, f.failing = next, true, false
		f.log.Info("decision log opened anew, for its file was moved or removed", "path", f.path)
	}
	if !f.fresh {
		return false
	}
	f.fresh = false
	return cutOff(f.path)
}

// cutOff reports whether a file ends within a line, as a crash leaves it.
func cutOff(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false // it may be ours to write and not to read
	}
	defer func() { _ = f.Close() }()
	var last [1]byte
	if _, err := f.Seek(-1, io.SeekEnd); err != nil {
		return false // it is empty
	}
	_, err = io.ReadFull(f, last[:])
	return err == nil && last[0] != '\n'
}
