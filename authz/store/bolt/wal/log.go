package wal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Options are the arguments of Open besides the folder.
type Options struct {
	// ID is that of the data file. A log of another file is refused.
	ID ID
	// Applied is the number of the last record that is in the data file. Those up to it are skipped.
	Applied uint64
	// SegmentSize is the size of a segment in bytes, a multiple of 4096; 0 is 4 MB. A longer record gets a longer segment.
	SegmentSize int64
	// OpenFile opens the files that are written to; nil is os.OpenFile.
	OpenFile func(string, int, os.FileMode) (*os.File, error)
}

// segmentSize is a second of short records, one at a time. Making a segment takes a few milliseconds.
const segmentSize = 4 << 20

// maxFree is how many files are kept to be used again.
const maxFree = 16

// maxBuffer is the longest frame whose buffer is kept.
const maxBuffer = 1 << 20

// Log is a log that is open for writing. Append is called by one goroutine at a time, the other methods by any.
type Log struct {
	dir string
	o   Options

	// Of the goroutine that appends.
	current *segment // nil until Begin
	next    uint64   // the number of the next record
	buf     []byte   // one frame
	dirty   bool     // an append failed: what is on disk after current.size is unknown

	prepareAt int64 // the size of current from which on the next segment is made

	making sync.Mutex // held while a segment is made
	mode   int        // guarded by making: the one of modes that works

	mu       sync.Mutex
	segments []*segment // all whose records may not be in the data file, the last is current
	number   uint64     // of the segment that was made last
	spare    *segment
	free     []string
	size     int64
	closed   bool
	prepared sync.WaitGroup
}

// Open reads the log as Read does, and opens it for writing. New records go to a new segment, which Begin or the first Append
// makes.
func Open(dir string, o Options, record func(seq uint64, record []byte) error) (*Log, Found, error) {
	if o.SegmentSize == 0 {
		o.SegmentSize = segmentSize
	}
	if o.OpenFile == nil {
		o.OpenFile = os.OpenFile
	}
	f, err := Read(dir, o.ID, o.Applied, record)
	if err != nil {
		return nil, f, err
	}
	return &Log{dir: dir, o: o, next: f.Last + 1, number: f.next - 1, segments: f.segments, free: f.free, size: f.Bytes}, f, nil
}

// Begin makes the folder and the first segment, if this Log has not begun yet. It is called by the goroutine that appends.
func (l *Log) Begin() error {
	if l.current != nil {
		return nil
	}
	if err := os.Mkdir(l.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return authz.Errorf(authz.KindUnavailable, "cannot make the folder of the write-ahead log: %w", err)
	}
	if err := syncDir(filepath.Dir(l.dir)); err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot sync the directory: %w", err)
	}
	return l.goOn()
}

// Append writes a record and returns its number when it is on disk. An error is of KindUnavailable: the record may be found when
// the log is opened again, or not, unless a later Append succeeds, which takes its place.
func (l *Log) Append(record []byte) (uint64, error) {
	if len(record) > maxRecord {
		return 0, authz.Errorf(authz.KindInvalid, "a record of %d bytes is too long for the write-ahead log", len(record))
	}
	if err := l.makeRoom(len(record)); err != nil {
		return 0, err
	}
	s := l.current
	size := padded(len(record), s.align)
	if int64(len(l.buf)) < size {
		l.buf = alignedBuffer(max(size, 64<<10))
	}
	frame := l.buf[:size]
	putFrame(frame, s.nonce, l.next, record)
	if err := s.writeAt(frame, s.size); err != nil {
		l.dirty = true
		return 0, authz.Errorf(authz.KindUnavailable, "writing to the write-ahead log: %w", err)
	}
	l.dirty = false
	seq := l.next
	l.next++
	l.mu.Lock()
	s.size, s.last, l.size = s.size+size, seq, l.size+size
	l.mu.Unlock()
	if s.size > l.prepareAt {
		l.prepareAt += l.o.SegmentSize / 8 // if it fails, the disk may be full
		l.prepare()
	}
	if len(l.buf) > maxBuffer {
		l.buf = nil
	}
	return seq, nil
}

// makeRoom goes on to the next segment if the record does not fit into this one.
func (l *Log) makeRoom(record int) error {
	if l.current == nil {
		return l.Begin()
	}
	s := l.current
	if empty := s.last == 0; empty || s.size+padded(record, s.align) <= l.o.SegmentSize {
		return nil
	}
	if l.dirty { // the number of the record that failed will be used in the next segment
		if err := s.writeAt(alignedBuffer(int64(s.align)), s.size); err != nil {
			return authz.Errorf(authz.KindUnavailable, "writing to the write-ahead log: %w", err)
		}
		l.dirty = false
	}
	if err := l.goOn(); err != nil {
		return err
	}
	_ = s.file.Close() // all of it is on disk
	return nil
}

// goOn makes the next segment the current one.
func (l *Log) goOn() error {
	next, err := l.make()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current, l.segments = next, append(l.segments, next)
	l.size, l.prepareAt = l.size+next.size, l.o.SegmentSize/2
	return nil
}

// prepare makes the next segment in the background, unless there is one.
func (l *Log) prepare() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spare != nil || l.closed || !l.making.TryLock() {
		return
	}
	l.prepared.Go(func() {
		defer l.making.Unlock()
		s, err := l.makeNew()
		if err == nil { // else Append tries again when it needs one, and answers with the error
			l.mu.Lock()
			l.spare = s
			l.mu.Unlock()
		}
	})
}

// make returns the segment that was prepared, or makes one.
func (l *Log) make() (*segment, error) {
	l.making.Lock()
	defer l.making.Unlock()
	l.mu.Lock()
	s := l.spare
	l.spare = nil
	l.mu.Unlock()
	if s != nil {
		return s, nil
	}
	return l.makeNew()
}

func (l *Log) makeNew() (*segment, error) {
	l.mu.Lock()
	number, free := l.number+1, ""
	if n := len(l.free); n > 0 {
		free, l.free = l.free[n-1], l.free[:n-1]
	}
	l.mu.Unlock()
	s, err := l.create(number, free)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.number = number
	case free != "":
		l.free = append(l.free, free)
	}
	return s, err
}

// Size is how many bytes of the log may hold records that are not in the data file.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

// Check returns an error of KindConflict if a file of the log was removed or replaced since it was opened. What is written to it is
// gone then when the process is killed.
func (l *Log) Check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		there, err := os.Stat(s.path)
		if err == nil && s.file != nil && s == l.segments[len(l.segments)-1] {
			var open os.FileInfo
			if open, err = s.file.Stat(); err == nil && !os.SameFile(there, open) {
				err = fs.ErrNotExist
			}
		}
		if err != nil {
			return authz.Errorf(authz.KindConflict, "a file of the write-ahead log was removed or replaced while the server runs: %s: %w", s.path, err)
		}
	}
	return nil
}

// Drop gives up the segments whose records are all in the data file, which has those up to this number.
func (l *Log) Drop(through uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.segments) > 0 && l.segments[0] != l.current && l.segments[0].last <= through {
		s := l.segments[0]
		free := filepath.Join(l.dir, freeName(s.number))
		var err error
		if len(l.free) < maxFree {
			if err = os.Rename(s.path, free); err == nil {
				l.free = append(l.free, free)
			}
		} else {
			err = os.Remove(s.path)
		}
		if err != nil {
			return authz.Errorf(authz.KindUnavailable, "cannot drop a segment of the write-ahead log: %w", err)
		}
		l.size -= s.size
		l.segments = l.segments[1:]
	}
	return nil
}

// Close closes the files. The records stay.
func (l *Log) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.prepared.Wait()
	var err error
	for _, s := range []*segment{l.current, l.spare} {
		if s != nil {
			err = errors.Join(err, s.file.Close())
		}
	}
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "closing the write-ahead log: %w", err)
	}
	return nil
}

// Remove removes a log all of whose records are in the data file.
func Remove(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot remove the write-ahead log: %w", err)
	}
	return nil
}
