package wal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Found is what Read learned about a log.
type Found struct {
	Last     uint64 // the sequence number of the last record, or of the last one before the log if it is empty
	Segments int
	Bytes    int64
	Seen     uint64 // the number of the last record in the log, whether it is in the data file or not; 0 if there is none

	segments []*segment
	next     uint64   // the number of the next segment
	free     []string // files that can be used again
}

// Read hands every record after the one with number applied to a function, in order, without changing anything. The function
// may keep the record. A folder that is not there is an empty log.
//
// A crash may leave a record that was being written half-written at the end: it was not acknowledged, and is left out. Anything
// else that is wrong would lose acknowledged records, and is an error of KindConflict: a bad frame before a good one, a record
// that is missing, a segment of another data file. An error of the function ends the reading.
func Read(dir string, id ID, applied uint64, record func(seq uint64, record []byte) error) (Found, error) {
	f := Found{Last: applied, next: 1}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, authz.Errorf(authz.KindUnavailable, "cannot read the write-ahead log: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if n, ok := segmentNumber(e.Name()); ok {
			f.segments = append(f.segments, &segment{number: n, path: path})
		} else if isFree(e.Name()) {
			f.free = append(f.free, path)
		}
	}
	slices.SortFunc(f.segments, func(a, b *segment) int { return int(int64(a.number) - int64(b.number)) })
	for _, s := range f.segments {
		if err := f.read(s, id, record); err != nil {
			return f, err
		}
		f.Segments, f.next = f.Segments+1, s.number+1
	}
	return f, nil
}

// segmentNumber reads the name of a segment.
func segmentNumber(name string) (uint64, bool) {
	n, err := strconv.ParseUint(name, 10, 62)
	return n, err == nil && segmentName(n) == name
}

// read reads one segment.
func (f *Found) read(s *segment, id ID, record func(seq uint64, record []byte) error) error {
	text, err := os.ReadFile(s.path)
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot read the write-ahead log: %w", err)
	}
	h, ok := decodeHeader(text)
	switch {
	case !ok:
		return authz.Errorf(authz.KindConflict, "the write-ahead log is damaged: %s has no sound header", s.path)
	case h.id != id:
		return authz.Errorf(authz.KindConflict, "the write-ahead log belongs to another data file: %s", s.path)
	}
	at := int(h.align)
	for at < len(text) {
		seq, body, ok := getFrame(text[at:], h.nonce)
		if !ok {
			break
		}
		if err := f.take(s, at, seq, body, record); err != nil {
			return err
		}
		at += int(padded(len(body), h.align))
	}
	f.Bytes += int64(at)
	s.size = int64(at)
	return f.endsAt(s, text, at, h)
}

// take hands one record on.
func (f *Found) take(s *segment, at int, seq uint64, body []byte, record func(seq uint64, record []byte) error) error {
	before := f.Seen
	f.Seen, s.last = seq, seq
	switch {
	case seq > before && seq < f.Last+1 && f.Last >= before:
		return nil // is in the data file
	case seq != f.Last+1:
		return authz.Errorf(authz.KindConflict,
			"the write-ahead log is damaged: record %d should be in %s at %d, and there is record %d", f.Last+1, s.path, at, seq)
	}
	f.Last = seq
	return record(seq, body)
}

// endsAt refuses a segment that has a sound frame after the end that was found: what lies between was acknowledged.
func (f *Found) endsAt(s *segment, text []byte, end int, h header) error {
	for at := end + int(h.align); at < len(text); at += int(h.align) {
		if seq, _, ok := getFrame(text[at:], h.nonce); ok {
			return authz.Errorf(authz.KindConflict, "the write-ahead log is damaged: %s has no sound record at %d, before record %d", s.path, end, seq)
		}
	}
	return nil
}
