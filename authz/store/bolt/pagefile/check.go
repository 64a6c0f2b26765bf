package pagefile

import (
	"bytes"
	"io"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Snapshot is a file as one transaction sees it.
type Snapshot struct {
	File        io.ReaderAt
	PageSize    int
	Pages       uint64 // pages from this one on are not part of the snapshot; the file has at least so many
	Root        uint64 // the page of the root bucket
	Transaction uint64
}

// maxDepth is deeper than any tree of pages of which each has two elements or more.
const maxDepth = 64

// metaPages is how many pages the meta data takes at the beginning.
const metaPages = 2

// Check returns an error of KindConflict unless every page that the snapshot can reach is sound, and is used in one place
// only. The error is of KindUnavailable if the file cannot be read.
func Check(s Snapshot) error {
	w := &walk{Snapshot: s, used: make([]bool, s.Pages)}
	for id := range min(metaPages, s.Pages) {
		w.used[id] = true
	}
	if err := w.tree(s.Root, nil, nil, 0); err != nil {
		return err
	}
	return w.freelist()
}

// damaged makes an error of KindConflict that says what is wrong with the file.
func damaged(format string, args ...any) error {
	return authz.Errorf(authz.KindConflict, "the file is damaged: "+format, args...)
}

// walk is the state of one Check.
type walk struct {
	Snapshot
	used    []bool             // by page
	buffers [maxDepth + 1]page // the page that is being checked at each depth
}

// tree checks a page and all below it. Their keys must lie from lo until before hi; nil bounds nothing.
func (w *walk) tree(id uint64, lo, hi []byte, depth int) error {
	if depth > maxDepth {
		return damaged("page %d is %d levels deep", id, depth)
	}
	if err := w.read(id, depth); err != nil {
		return err
	}
	p := w.buffers[depth]
	switch flags := p.flags(); flags {
	case branchPage:
		return w.branch(id, p, lo, hi, depth)
	case leafPage:
		return w.leaf(id, p, lo, hi, depth)
	default:
		return damaged("page %d has type %#x", id, flags)
	}
}

// read reads a page, with those that belong to it, into the buffer of that depth, and marks them as used.
func (w *walk) read(id uint64, depth int) error {
	if id < metaPages || id >= w.Pages {
		return damaged("page %d is outside", id)
	}
	if err := w.readAt(id, 1, depth); err != nil {
		return err
	}
	p := w.buffers[depth]
	if got := p.id(); got != id {
		return damaged("page %d says that it is page %d", id, got)
	}
	last := id + p.overflow()
	if last >= w.Pages {
		return damaged("page %d goes on until outside", id)
	}
	for n := id; n <= last; n++ {
		if w.used[n] {
			return damaged("page %d is used twice", n)
		}
		w.used[n] = true
	}
	if last == id {
		return nil
	}
	return w.readAt(id, int(last-id)+1, depth)
}

// readAt reads so many pages from one on.
func (w *walk) readAt(id uint64, pages, depth int) error {
	size := pages * w.PageSize
	if cap(w.buffers[depth]) < size {
		w.buffers[depth] = make(page, size)
	}
	w.buffers[depth] = w.buffers[depth][:size]
	if _, err := w.File.ReadAt(w.buffers[depth], int64(id)*int64(w.PageSize)); err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot read page %d: %w", id, err)
	}
	return nil
}

func (w *walk) branch(id uint64, p page, lo, hi []byte, depth int) error {
	if p.count() == 0 {
		return damaged("page %d leads nowhere", id)
	}
	if err := ordered(id, p, element.branchKey, lo, hi); err != nil {
		return err
	}
	for i := range p.count() {
		next := hi
		if i+1 < p.count() {
			next = p.element(i + 1).branchKey()
		}
		e := p.element(i)
		if err := w.tree(e.child(), e.branchKey(), next, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) leaf(id uint64, p page, lo, hi []byte, depth int) error {
	if err := ordered(id, p, element.leafKey, lo, hi); err != nil {
		return err
	}
	for i := range p.count() {
		e := p.element(i)
		value := e.value()
		if value == nil {
			return damaged("page %d has a value outside", id)
		}
		if !e.isBucket() {
			continue
		}
		if err := w.bucket(id, value, depth); err != nil {
			return err
		}
	}
	return nil
}

// bucket checks the bucket that is the value of an element of a page.
func (w *walk) bucket(id uint64, value []byte, depth int) error {
	if len(value) < bucketInline {
		return damaged("page %d has a bucket that is cut short", id)
	}
	if root := u64(value, bucketRoot); root != 0 {
		return w.tree(root, nil, nil, depth+1)
	}
	inline := page(value[bucketInline:])
	if len(inline) < pageElements || inline.flags() != leafPage || depth >= maxDepth {
		return damaged("page %d has a small bucket without a page", id)
	}
	return w.leaf(id, inline, nil, nil, depth+1)
}

// ordered checks that the elements of a page are all there, and that their keys ascend and lie from lo until before hi.
func ordered(id uint64, p page, key func(element) []byte, lo, hi []byte) error {
	if pageElements+p.count()*elementSize > len(p) {
		return damaged("page %d has room for fewer than %d elements", id, p.count())
	}
	var last []byte
	for i := range p.count() {
		k := key(p.element(i))
		switch {
		case k == nil:
			return damaged("page %d has a key outside", id)
		case i > 0 && bytes.Compare(last, k) >= 0, lo != nil && bytes.Compare(k, lo) < 0, hi != nil && bytes.Compare(k, hi) >= 0:
			return damaged("page %d has keys out of order", id)
		}
		last = k
	}
	return nil
}

// freelist checks that no page is both used and on the list of free ones.
func (w *walk) freelist() error {
	var meta [metaSize]byte
	if _, err := w.File.ReadAt(meta[:], int64(w.Transaction%metaPages)*int64(w.PageSize)); err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot read the meta page: %w", err)
	}
	if u64(meta[:], metaTransaction) != w.Transaction {
		return nil // a later transaction has been written: the list of this one is no longer in use
	}
	id := u64(meta[:], metaFreelist)
	if err := w.read(id, 0); err != nil {
		return err
	}
	p := w.buffers[0]
	if p.flags() != freelistPage {
		return damaged("page %d is not the list of free pages", id)
	}
	list := p[pageElements:]
	count := uint64(p.count())
	if count == manyFree {
		count, list = u64(list, 0), list[freeIDSize:]
	}
	if count > uint64(len(list)/freeIDSize) {
		return damaged("the list of free pages is cut short")
	}
	for i := range int(count) {
		free := u64(list, i*freeIDSize)
		if free >= w.Pages || w.used[free] {
			return damaged("page %d is used and on the list of free pages", free)
		}
		w.used[free] = true
	}
	return nil
}
