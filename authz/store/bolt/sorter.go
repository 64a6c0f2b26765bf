package bolt

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// sorter sorts any number of records by key, in little memory: what does not fit is written to temporary files in sorted runs, which
// are merged in the end. bbolt takes records in order many times as fast as others, and without reading what is there.
type sorter struct {
	dir  string
	size int // bytes of records in memory

	buf  []byte // of the present run: lengths of key and value, key and value
	at   []int  // where its records begin
	runs []*os.File
}

// sortMemory is how much a sorter holds in memory.
const sortMemory = 16 << 20

func newSorter(dir string) *sorter { return &sorter{dir: dir, size: sortMemory} }

// add copies a record.
func (s *sorter) add(key, value []byte) error {
	if len(s.buf)+len(key)+len(value) > s.size && len(s.at) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.at = append(s.at, len(s.buf))
	s.buf = appendSorted(s.buf, key, value)
	return nil
}

func appendSorted(out, key, value []byte) []byte {
	out = binary.AppendUvarint(out, uint64(len(key)))
	out = binary.AppendUvarint(out, uint64(len(value)))
	return append(append(out, key...), value...)
}

// record reads the record that begins at a place in the present run.
func (s *sorter) record(at int) (key, value []byte) {
	k, n := binary.Uvarint(s.buf[at:])
	v, m := binary.Uvarint(s.buf[at+n:])
	begin := at + n + m
	return s.buf[begin : begin+int(k)], s.buf[begin+int(k) : begin+int(k)+int(v)]
}

func (s *sorter) sort() {
	slices.SortFunc(s.at, func(a, b int) int {
		x, _ := s.record(a)
		y, _ := s.record(b)
		return bytes.Compare(x, y)
	})
}

// spill writes the present run to a file. The file has no name any more, so that it is gone with the process.
func (s *sorter) spill() error {
	f, err := os.CreateTemp(s.dir, ".tollkeeper-*.sort")
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "sorting: %w", err)
	}
	s.runs = append(s.runs, f)
	err = os.Remove(f.Name())
	s.sort()
	out := bufio.NewWriterSize(f, 1<<20)
	var record []byte
	for _, at := range s.at {
		key, value := s.record(at)
		record = appendSorted(record[:0], key, value)
		_, _ = out.Write(record) // Flush reports an error
	}
	if err = errors.Join(err, out.Flush()); err != nil {
		return authz.Errorf(authz.KindUnavailable, "sorting: %w", err)
	}
	s.buf, s.at = s.buf[:0], s.at[:0]
	return nil
}

// each calls a function for every record, in the order of their keys. It ends the sorter.
func (s *sorter) each(do func(key, value []byte) error) error {
	defer s.close()
	if len(s.runs) == 0 {
		s.sort()
		for _, at := range s.at {
			if err := do(s.record(at)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := s.spill(); err != nil {
		return err
	}
	s.buf, s.at = nil, nil
	var m merge
	for _, f := range s.runs {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return authz.Errorf(authz.KindUnavailable, "sorting: %w", err)
		}
		m = append(m, &run{in: bufio.NewReaderSize(f, 256<<10)})
	}
	return m.each(do)
}

// close gives up the files.
func (s *sorter) close() {
	for _, f := range s.runs {
		_ = f.Close()
	}
	s.runs = nil
}

// run is a sorted file that is being read.
type run struct {
	in         *bufio.Reader
	key, value []byte // the next record
}

// next reads the next record. It returns io.EOF at the end.
func (r *run) next() error {
	k, err := binary.ReadUvarint(r.in)
	if err != nil {
		return err
	}
	v, err := binary.ReadUvarint(r.in)
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	r.key, r.value = slices.Grow(r.key[:0], int(k))[:k], slices.Grow(r.value[:0], int(v))[:v]
	_, err = io.ReadFull(r.in, r.key)
	if err == nil {
		_, err = io.ReadFull(r.in, r.value)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// merge is a heap of runs, the one with the lowest key first.
type merge []*run

func (m merge) Len() int           { return len(m) }
func (m merge) Less(i, j int) bool { return bytes.Compare(m[i].key, m[j].key) < 0 }
func (m merge) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *merge) Push(r any)        { *m = append(*m, r.(*run)) }

// Pop removes the last one.
func (m *merge) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}

func (m *merge) each(do func(key, value []byte) error) error {
	for i := 0; i < len(*m); {
		switch err := (*m)[i].next(); {
		case err == io.EOF:
			*m = slices.Delete(*m, i, i+1)
		case err != nil:
			return authz.Errorf(authz.KindUnavailable, "sorting: %w", err)
		default:
			i++
		}
	}
	heap.Init(m)
	for m.Len() > 0 {
		first := (*m)[0]
		if err := do(first.key, first.value); err != nil {
			return err
		}
		switch err := first.next(); {
		case err == io.EOF:
			heap.Pop(m)
		case err != nil:
			return authz.Errorf(authz.KindUnavailable, "sorting: %w", err)
		default:
			heap.Fix(m, 0)
		}
	}
	return nil
}
