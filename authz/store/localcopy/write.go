package localcopy

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"
)

// An entry is its size (4 bytes, little-endian, of kind and body), its checksum (4 bytes), its kind (1 byte) and its body. The first
// is the head, which says which store this is a copy of.
const (
	prefix  = 8
	maxBody = 64 << 20

	kindHead = 0xfe
	kindMark = 0xff // its body is the time (8 bytes, nanoseconds since 1970) and the position
)

// MaxKind is the highest kind that a caller may use.
const MaxKind = kindHead - 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Writer writes a file. It is used by one goroutine at a time. After an error it must be closed.
type Writer struct {
	path  string
	file  *os.File
	out   *bufio.Writer
	sum   uint32 // of all before
	size  int64
	newly bool // the file does not have its name yet
}

// Create begins a file, under another name until Publish. head says which store it is a copy of.
func Create(path string, head []byte) (*Writer, error) {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("local copy: %w", err)
	}
	w := &Writer{path: path, file: f, out: bufio.NewWriterSize(f, 256<<10), newly: true}
	if err := w.Add(kindHead, head); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// Add appends an entry, whose body is the parts one after the other. It is buffered until the next Mark.
func (w *Writer) Add(kind byte, parts ...[]byte) error {
	size := 1
	for _, p := range parts {
		size += len(p)
	}
	if size > maxBody {
		return fmt.Errorf("local copy: an entry of %d bytes", size)
	}
	w.sum = crc32.Update(w.sum, castagnoli, []byte{kind})
	for _, p := range parts {
		w.sum = crc32.Update(w.sum, castagnoli, p)
	}
	var head [prefix + 1]byte
	binary.LittleEndian.PutUint32(head[:], uint32(size))
	binary.LittleEndian.PutUint32(head[4:], w.sum)
	head[prefix] = kind
	_, err := w.out.Write(head[:])
	for _, p := range parts {
		if err == nil {
			_, err = w.out.Write(p)
		}
	}
	w.size += int64(prefix + size)
	if err != nil {
		return fmt.Errorf("local copy: %w", err)
	}
	return nil
}

// Mark says that what was added is complete at that time, up to that position.
func (w *Writer) Mark(at time.Time, position []byte) error {
	if err := w.Add(kindMark, binary.LittleEndian.AppendUint64(nil, uint64(at.UnixNano())), position); err != nil {
		return err
	}
	if err := w.out.Flush(); err != nil {
		return fmt.Errorf("local copy: %w", err)
	}
	return nil
}

// Sync has what was added reach the disk. It makes Publish short.
func (w *Writer) Sync() error {
	if err := errors.Join(w.out.Flush(), w.file.Sync()); err != nil {
		return fmt.Errorf("local copy: %w", err)
	}
	return nil
}

// Publish gives the file its name, in place of the one before. The caller has marked it.
func (w *Writer) Publish() error {
	if err := w.Sync(); err != nil {
		return err
	}
	if err := os.Rename(w.path+".new", w.path); err != nil {
		return fmt.Errorf("local copy: %w", err)
	}
	w.newly = false
	d, err := os.Open(filepath.Dir(w.path))
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("local copy: %w", err)
	}
	return nil
}

// Size is how many bytes were added.
func (w *Writer) Size() int64 { return w.size }

// Close closes the file, and removes one that was not published.
func (w *Writer) Close() error {
	err := errors.Join(w.out.Flush(), w.file.Close())
	if w.newly {
		err = errors.Join(err, os.Remove(w.path+".new"))
	}
	return err
}
