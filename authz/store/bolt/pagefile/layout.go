package pagefile

import "encoding/binary"

// The layout of a bbolt file, which bbolt promises to keep. The structures are those of bbolt's internal/common (page.go,
// bucket.go, meta.go); each field is given by its position. All numbers are in the byte order of the machine.

// A page begins with a header.
const (
	pageID       = 0  // uint64
	pageFlags    = 8  // uint16
	pageCount    = 10 // uint16, the number of elements
	pageOverflow = 12 // uint32, how many pages belong to this one besides the first
	pageElements = 16 // the elements, each of elementSize
)

// The types of a page, in its flags.
const (
	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
)

const elementSize = 16

// An element of a branch page is a child and the first key below it.
const (
	branchKeyPosition = 0 // uint32, counted from the element
	branchKeySize     = 4 // uint32
	branchChild       = 8 // uint64, a page
)

// An element of a leaf page is a key and the value behind it.
const (
	leafFlags       = 0  // uint32
	leafKeyPosition = 4  // uint32, counted from the element
	leafKeySize     = 8  // uint32
	leafValueSize   = 12 // uint32
)

// bucketEntry, in the flags of an element, says that its value is a bucket.
const bucketEntry = 0x01

// A bucket is the value of an element.
const (
	bucketRoot   = 0  // uint64, a page; 0 says that a leaf page follows in the value
	bucketInline = 16 // that page, after the bucket's sequence
)

// A meta page is page 0 or 1, of which transactions write each other one. These fields follow the page's header.
const (
	metaFreelist    = pageElements + 32 // uint64, a page
	metaTransaction = pageElements + 48 // uint64
	metaSize        = pageElements + 64
)

// A freelist page holds the ids of pages, uint64 each. If there are manyFree or more, the first of them is their number.
const (
	freeIDSize = 8
	manyFree   = 0xffff
)

// page is one page with those that belong to it, or the inline page of a bucket. It has at least a header.
type page []byte

func (p page) id() uint64       { return u64(p, pageID) }
func (p page) flags() uint16    { return u16(p, pageFlags) }
func (p page) count() int       { return int(u16(p, pageCount)) }
func (p page) overflow() uint64 { return u64of32(p, pageOverflow) }

// element is an element and everything behind it on its page.
func (p page) element(i int) element { return element(p[pageElements+i*elementSize:]) }

type element []byte

func (e element) branchKey() []byte {
	return e.cut(u64of32(e, branchKeyPosition), u64of32(e, branchKeySize))
}

func (e element) leafKey() []byte {
	return e.cut(u64of32(e, leafKeyPosition), u64of32(e, leafKeySize))
}

func (e element) value() []byte {
	return e.cut(u64of32(e, leafKeyPosition)+u64of32(e, leafKeySize), u64of32(e, leafValueSize))
}

func (e element) child() uint64  { return u64(e, branchChild) }
func (e element) isBucket() bool { return u64of32(e, leafFlags)&bucketEntry != 0 }

// cut returns size bytes from a position on, nil if they are not all on the page. Both fit in 33 bits.
func (e element) cut(at, size uint64) []byte {
	if end := at + size; end <= uint64(len(e)) {
		return e[at:end:end]
	}
	return nil
}

func u16(b []byte, at int) uint16     { return binary.NativeEndian.Uint16(b[at:]) }
func u64(b []byte, at int) uint64     { return binary.NativeEndian.Uint64(b[at:]) }
func u64of32(b []byte, at int) uint64 { return uint64(binary.NativeEndian.Uint32(b[at:])) }
