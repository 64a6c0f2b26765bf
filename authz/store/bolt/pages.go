package bolt

import (
	"bytes"
	"encoding/binary"
	"os"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// bbolt trusts its file: a page that points at itself makes it loop for ever, one that points nowhere makes it crash,
// and a page that is in use and on the list of free ones is overwritten. checkPages therefore walks the tree of pages
// once, on the bytes of the file, before anything else reads it. It knows the file's format, which bbolt promises to
// keep:
//
//	page     id uint64, flags uint16, count uint16, overflow uint32 (pages that belong to it besides the first), elements
//	branch   position of the key, counted from here, uint32; its size uint32; page uint64
//	leaf     flags uint32 (1: a bucket), position of the key uint32, its size uint32, size of the value after it uint32
//	bucket   the value of a leaf: root page uint64, sequence uint64; root 0 means that a page follows in the value
//	meta     magic, version, page size, flags uint32; root, sequence, list of free pages, end, transaction uint64
//
// All numbers are in the byte order of the machine.
const (
	pageHeader  = 16
	elementSize = 16
	bucketSize  = 16
	maxDepth    = 64

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	flagBucket   = 0x01
)

// walk is the state of one checkPages.
type walk struct {
	file     *os.File
	pageSize int
	end      uint64          // pages from this one on are not part of the file
	used     map[uint64]bool // pages that were seen
}

// checkPages returns an error of KindConflict unless every page that the transaction can reach is sound, and on one
// place only.
func checkPages(tx *bbolt.Tx) error {
	f, err := os.Open(tx.DB().Path())
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot read the data file: %w", err)
	}
	defer func() { _ = f.Close() }()
	size := tx.DB().Info().PageSize
	w := &walk{file: f, pageSize: size, end: uint64(tx.Size()) / uint64(size), used: map[uint64]bool{0: true, 1: true}}
	if info, err := f.Stat(); err != nil || info.Size() < tx.Size() {
		return damaged("it is shorter than it says")
	}
	if err := w.tree(uint64(tx.Cursor().Bucket().RootPage()), nil, nil, 0); err != nil {
		return err
	}
	return w.free(uint64(tx.ID()))
}

func damaged(format string, args ...any) error {
	return authz.Errorf(authz.KindConflict, "the file is damaged: "+format, args...)
}

// tree checks a page and all below it, whose keys must lie from lo until before hi.
func (w *walk) tree(id uint64, lo, hi []byte, depth int) error {
	if depth > maxDepth {
		return damaged("page %d is %d levels deep", id, depth)
	}
	page, err := w.read(id)
	if err != nil {
		return err
	}
	switch flags := binary.NativeEndian.Uint16(page[8:]); flags {
	case flagBranch:
		return w.branch(id, page, lo, hi, depth)
	case flagLeaf:
		return w.leaf(id, page, lo, hi, depth)
	default:
		return damaged("page %d has type %#x", id, flags)
	}
}

// read returns a page with those that belong to it, and marks them as used.
func (w *walk) read(id uint64) ([]byte, error) {
	if id < 2 || id >= w.end {
		return nil, damaged("page %d is outside", id)
	}
	page := make([]byte, w.pageSize)
	if _, err := w.file.ReadAt(page, int64(id)*int64(w.pageSize)); err != nil {
		return nil, authz.Errorf(authz.KindUnavailable, "cannot read page %d: %w", id, err)
	}
	if got := binary.NativeEndian.Uint64(page); got != id {
		return nil, damaged("page %d says that it is page %d", id, got)
	}
	last := id + uint64(binary.NativeEndian.Uint32(page[12:]))
	if last >= w.end {
		return nil, damaged("page %d goes on until outside", id)
	}
	for p := id; p <= last; p++ {
		if w.used[p] {
			return nil, damaged("page %d is used twice", p)
		}
		w.used[p] = true
	}
	if last > id {
		page = make([]byte, (last-id+1)*uint64(w.pageSize))
		if _, err := w.file.ReadAt(page, int64(id)*int64(w.pageSize)); err != nil {
			return nil, authz.Errorf(authz.KindUnavailable, "cannot read page %d: %w", id, err)
		}
	}
	return page, nil
}

// cut returns size bytes from position at of an element, nil if they are not all on the page.
func cut(element []byte, at, size uint32) []byte {
	if end := uint64(at) + uint64(size); end <= uint64(len(element)) {
		return element[at:end:end]
	}
	return nil
}

// elements returns where the elements of a page begin, each reaching to the end of the page.
func elements(id uint64, page []byte) ([][]byte, error) {
	if len(page) < pageHeader {
		return nil, damaged("page %d is cut short", id)
	}
	count := int(binary.NativeEndian.Uint16(page[10:]))
	if pageHeader+count*elementSize > len(page) {
		return nil, damaged("page %d has room for fewer than %d elements", id, count)
	}
	out := make([][]byte, count)
	for i := range out {
		out[i] = page[pageHeader+i*elementSize:]
	}
	return out, nil
}

func (w *walk) branch(id uint64, page, lo, hi []byte, depth int) error {
	children, err := elements(id, page)
	if err != nil {
		return err
	}
	if len(children) == 0 {
		return damaged("page %d leads nowhere", id)
	}
	keys := make([][]byte, len(children), len(children)+1)
	for i, e := range children {
		keys[i] = cut(e, binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]))
	}
	if err := ordered(id, keys, lo, hi); err != nil {
		return err
	}
	keys = append(keys, hi)
	for i, e := range children {
		if err := w.tree(binary.NativeEndian.Uint64(e[8:]), keys[i], keys[i+1], depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) leaf(id uint64, page, lo, hi []byte, depth int) error {
	entries, err := elements(id, page)
	if err != nil {
		return err
	}
	keys := make([][]byte, len(entries))
	for i, e := range entries {
		at, size := binary.NativeEndian.Uint32(e[4:]), binary.NativeEndian.Uint32(e[8:])
		keys[i] = cut(e, at, size)
		value := cut(e, at+size, binary.NativeEndian.Uint32(e[12:]))
		if value == nil || at+size < at {
			return damaged("page %d has a value outside", id)
		}
		if binary.NativeEndian.Uint32(e)&flagBucket == 0 {
			continue
		}
		if err := w.bucket(id, value, depth); err != nil {
			return err
		}
	}
	return ordered(id, keys, lo, hi)
}

func (w *walk) bucket(id uint64, value []byte, depth int) error {
	if len(value) < bucketSize {
		return damaged("page %d has a bucket that is cut short", id)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return w.tree(root, nil, nil, depth+1)
	}
	inline := value[bucketSize:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint16(inline[8:]) != flagLeaf || depth >= maxDepth {
		return damaged("page %d has a small bucket without a page", id)
	}
	return w.leaf(id, inline, nil, nil, depth+1)
}

// ordered checks that keys are there, ascend, and lie from lo until before hi; nil bounds nothing.
func ordered(id uint64, keys [][]byte, lo, hi []byte) error {
	for i, k := range keys {
		switch {
		case k == nil:
			return damaged("page %d has a key outside", id)
		case i > 0 && bytes.Compare(keys[i-1], k) >= 0, lo != nil && bytes.Compare(k, lo) < 0, hi != nil && bytes.Compare(k, hi) >= 0:
			return damaged("page %d has keys out of order", id)
		}
	}
	return nil
}

// free checks that no page that is used is on the list of free ones.
func (w *walk) free(transaction uint64) error {
	var meta [80]byte
	if _, err := w.file.ReadAt(meta[:], int64(transaction%2)*int64(w.pageSize)); err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot read the meta page: %w", err)
	}
	if binary.NativeEndian.Uint64(meta[pageHeader+48:]) != transaction {
		return nil // somebody has written since: the list of this transaction is not used any more
	}
	id := binary.NativeEndian.Uint64(meta[pageHeader+32:])
	page, err := w.read(id)
	if err != nil {
		return err
	}
	if binary.NativeEndian.Uint16(page[8:]) != flagFreelist {
		return damaged("page %d is not the list of free pages", id)
	}
	count, list := uint64(binary.NativeEndian.Uint16(page[10:])), page[pageHeader:]
	if count == 0xffff { // too many for the header: the number comes first
		count, list = binary.NativeEndian.Uint64(list), list[8:]
	}
	if count > uint64(len(list)/8) {
		return damaged("the list of free pages is cut short")
	}
	for ; count > 0; count, list = count-1, list[8:] {
		p := binary.NativeEndian.Uint64(list)
		if p >= w.end || w.used[p] {
			return damaged("page %d is used and on the list of free pages", p)
		}
		w.used[p] = true
	}
	return nil
}
