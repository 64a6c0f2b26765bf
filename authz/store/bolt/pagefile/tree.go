package pagefile

import (
	"bytes"
	"io"
	"sort"
	"sync"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Tree finds keys in one version of a bucket with one read of the file each: it keeps the branch pages in memory, which are about
// a fiftieth of the bucket. bbolt itself maps the file: a page that is not mapped yet costs several times a read, and stays in
// the memory of the process. authz/decisions/019 has the measurements.
//
// Its methods may be called concurrently, while a transaction is open that sees this version: the pages of a version stay
// as they are until the last of its transactions has ended.
type Tree struct {
	file     io.ReaderAt
	pageSize int
	root     uint64

	mu       sync.RWMutex
	branches map[uint64]page
}

// NewTree makes a tree of a bucket by the page of its root, which is not 0: small buckets have no page of their own.
func NewTree(file io.ReaderAt, pageSize int, root uint64) *Tree {
	return &Tree{file: file, pageSize: pageSize, root: root, branches: make(map[uint64]page)}
}

// pageBuffers are for pages that are only looked at.
var pageBuffers = sync.Pool{New: func() any { return new(page) }}

const maxPooled = 1 << 18

// Get calls found with the value of a key, which is valid during the call, or returns false if there is none. The error is that of
// found, or of KindUnavailable if the file cannot be read or is damaged.
func (t *Tree) Get(key []byte, found func(value []byte) error) (ok bool, err error) {
	buffer := pageBuffers.Get().(*page)
	defer func() {
		if cap(*buffer) <= maxPooled {
			pageBuffers.Put(buffer)
		}
	}()
	id := t.root
	for range maxDepth {
		p, err := t.page(id, buffer)
		if err != nil {
			return false, err
		}
		n := p.count()
		if pageElements+n*elementSize > len(p) {
			return false, unreadable(id)
		}
		if p.flags() == leafPage {
			i := sort.Search(n, func(i int) bool { return bytes.Compare(p.element(i).leafKey(), key) >= 0 })
			if i == n || !bytes.Equal(p.element(i).leafKey(), key) {
				return false, nil
			}
			value := p.element(i).value()
			if value == nil || p.element(i).isBucket() {
				return false, unreadable(id)
			}
			return true, found(value)
		}
		// The child is the last that begins at or before the key. A key before the first child is not in the bucket, which
		// the leaf then says.
		i := sort.Search(n, func(i int) bool { return bytes.Compare(p.element(i).branchKey(), key) > 0 })
		if n == 0 {
			return false, unreadable(id)
		}
		id = p.element(max(i-1, 0)).child()
	}
	return false, unreadable(t.root)
}

// page returns a page from memory, or reads it. It is valid until the buffer is used again.
func (t *Tree) page(id uint64, buffer *page) (page, error) {
	t.mu.RLock()
	p, ok := t.branches[id]
	t.mu.RUnlock()
	if ok {
		return p, nil
	}
	p, err := t.read(id, 1, buffer)
	if err == nil && p.overflow() > 0 {
		if p.overflow() > maxOverflow {
			return nil, unreadable(id)
		}
		p, err = t.read(id, int(p.overflow())+1, buffer)
	}
	switch {
	case err != nil:
		return nil, err
	case p.id() != id:
		return nil, unreadable(id)
	case p.flags() == leafPage:
		return p, nil
	case p.flags() != branchPage:
		return nil, unreadable(id)
	}
	p = bytes.Clone(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.branches[id] = p
	return p, nil
}

// maxOverflow bounds the memory that a damaged page takes. bbolt stores values of up to 2 GiB, and ours have a few kilobytes.
const maxOverflow = 1 << 14

func (t *Tree) read(id uint64, pages int, buffer *page) (page, error) {
	size := pages * t.pageSize
	if cap(*buffer) < size {
		*buffer = make(page, size)
	}
	p := (*buffer)[:size]
	if _, err := t.file.ReadAt(p, int64(id)*int64(t.pageSize)); err != nil {
		return nil, authz.Errorf(authz.KindUnavailable, "cannot read page %d of the data file: %w", id, err)
	}
	return p, nil
}

func unreadable(id uint64) error {
	return authz.Errorf(authz.KindUnavailable, "page %d of the data file is damaged", id)
}
