package localcopy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"
)

// ErrUnusable is the error of a file that is a copy of another store, is damaged at its beginning, or was never complete.
var ErrUnusable = errors.New("local copy: not usable")

// Mark is how complete a copy is.
type Mark struct {
	At       time.Time
	Position []byte
}

// Read calls each for the entries of a file, in the order in which they were added, and returns the last mark. Entries that were
// added after that are passed too. each must not keep the body. If Read returns an error, what each got is worth nothing: the
// error is os.ErrNotExist if there is no file, ErrUnusable, one of the operating system, or one of each.
func Read(path string, head []byte, each func(kind byte, body []byte) error) (Mark, error) {
	f, err := os.Open(path)
	if err != nil {
		return Mark{}, fmt.Errorf("local copy: %w", err)
	}
	defer func() { _ = f.Close() }()
	r := reader{in: bufio.NewReaderSize(f, 256<<10)}
	if kind, body, ok := r.next(); !ok || kind != kindHead || !bytes.Equal(body, head) {
		return Mark{}, ErrUnusable
	}
	var mark Mark
	marked := false
	for {
		kind, body, ok := r.next()
		switch {
		case !ok && !marked:
			return Mark{}, ErrUnusable
		case !ok:
			return mark, nil
		case kind == kindMark && len(body) >= 8:
			marked = true
			mark = Mark{time.Unix(0, int64(binary.LittleEndian.Uint64(body))), bytes.Clone(body[8:])}
		case kind > MaxKind:
			return Mark{}, ErrUnusable
		default:
			if err := each(kind, body); err != nil {
				return Mark{}, err
			}
		}
	}
}

type reader struct {
	in   *bufio.Reader
	sum  uint32
	body []byte
}

// next returns the next entry, or false at the end of what can be read.
func (r *reader) next() (kind byte, body []byte, ok bool) {
	var head [prefix]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return 0, nil, false
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size == 0 || size > maxBody {
		return 0, nil, false
	}
	if uint32(cap(r.body)) < size {
		r.body = make([]byte, size)
	}
	b := r.body[:size]
	if _, err := io.ReadFull(r.in, b); err != nil {
		return 0, nil, false
	}
	if r.sum = crc32.Update(r.sum, castagnoli, b); r.sum != binary.LittleEndian.Uint32(head[4:]) {
		return 0, nil, false
	}
	return b[0], b[1:], true
}
