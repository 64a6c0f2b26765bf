package wal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// segment is one file of the log.
type segment struct {
	number uint64
	path   string
	size   int64  // how much of it is used
	last   uint64 // the number of its last record, 0 if there is none

	// Of a segment that is written to.
	file  *os.File
	align uint32
	nonce uint64
}

func segmentName(n uint64) string { return fmt.Sprintf("%08d", n) }

const freePrefix = "free-"

func isFree(name string) bool { return strings.HasPrefix(name, freePrefix) }

// freeName is the name of a segment whose records are all in the data file.
func freeName(n uint64) string { return freePrefix + segmentName(n) }

// alignedBuffer returns a buffer of that size that the disk can read from directly.
func alignedBuffer(size int64) []byte {
	raw := make([]byte, size+bigBlock)
	skip := -int(uintptr(unsafe.Pointer(&raw[0]))) & (bigBlock - 1)
	return raw[skip : skip+int(size) : skip+int(size)]
}

// writeMode is how the file system lets us write.
type writeMode struct {
	direct bool
	align  uint32
}

// modes are tried in this order when the first segment is made.
var modes = []writeMode{{true, smallBlock}, {true, bigBlock}, {false, smallBlock}}

// create makes a segment out of a free file, or a new one if there is none, in the first mode that works.
func (l *Log) create(number uint64, free string) (*segment, error) {
	for i, m := range modes {
		if i < l.mode || m.direct && directFlag == 0 {
			continue
		}
		s, err := l.createIn(m, number, free)
		if errors.Is(err, syscall.EINVAL) && i+1 < len(modes) {
			continue
		}
		if err != nil {
			return nil, authz.Errorf(authz.KindUnavailable, "cannot make a segment of the write-ahead log: %w", err)
		}
		l.mode = i
		return s, nil
	}
	panic("unreachable: the last mode is tried always")
}

// createIn makes a segment. Its name becomes a number when all of it is on disk.
func (l *Log) createIn(m writeMode, number uint64, free string) (_ *segment, err error) {
	s := &segment{number: number, path: filepath.Join(l.dir, segmentName(number)), size: int64(m.align), align: m.align}
	isNew := free == ""
	if isNew {
		free = filepath.Join(l.dir, freeName(number))
	}
	flags := os.O_RDWR | os.O_CREATE | syncFlag
	if m.direct {
		flags |= directFlag
	}
	if s.file, err = l.o.OpenFile(free, flags, 0o600); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.file.Close()
		}
	}()
	if isNew && m.direct {
		if err := l.fill(s.file); err != nil {
			return nil, errors.Join(err, os.Remove(free))
		}
	}
	if err := s.writeHeader(l.o.ID); err != nil {
		return nil, err
	}
	if err := os.Rename(free, s.path); err != nil {
		return nil, err
	}
	return s, syncDir(l.dir)
}

// writeHeader begins a segment, with a nonce that no earlier one had.
func (s *segment) writeHeader(id ID) error {
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never fails
	s.nonce = binary.LittleEndian.Uint64(nonce[:])
	block := alignedBuffer(int64(s.align))
	h := header{align: s.align, id: id, nonce: s.nonce}
	h.encode(block)
	return s.writeAt(block, 0)
}

// writeAt returns when the blocks are on disk.
func (s *segment) writeAt(blocks []byte, at int64) error {
	_, err := s.file.WriteAt(blocks, at)
	if err == nil && syncFlag == 0 {
		err = s.file.Sync()
	}
	return err
}

// fill writes zeros to a new file, so that the blocks of later writes are there. It writes directly: through the page cache,
// later writes would count as pages of 2 MB each.
func (l *Log) fill(file *os.File) error {
	const piece = 1 << 20
	zeros := alignedBuffer(min(piece, l.o.SegmentSize))
	for at := int64(0); at < l.o.SegmentSize; at += int64(len(zeros)) {
		if _, err := file.WriteAt(zeros, at); err != nil {
			return err
		}
	}
	return nil
}

// syncDir makes names durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
