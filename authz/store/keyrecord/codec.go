package keyrecord

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Records are checked when they are read from the store: a changed bit could enable a disabled key.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sumSize = 4

func checksum(key, record []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, record)
}

// Open returns the record without its checksum. The error is of KindUnavailable, and says that the record was changed, or belongs
// to another key.
func Open(key, sealed []byte) ([]byte, error) {
	if n := len(sealed) - sumSize; n > 0 && binary.LittleEndian.Uint32(sealed[n:]) == checksum(key, sealed[:n]) {
		return sealed[:n], nil
	}
	return nil, damaged()
}

func damaged() error {
	return authz.Errorf(authz.KindUnavailable, "a record in the store is damaged")
}

// writer appends to a record.
type writer struct {
	dst   []byte
	begin int // of the record
	flags uint64
}

func (w *writer) head() {
	w.dst = append(w.dst, version)
	w.number(w.flags)
}

func (w *writer) seal(key []byte) []byte {
	return binary.LittleEndian.AppendUint32(w.dst, checksum(key, w.dst[w.begin:]))
}

func (w *writer) number(n uint64) { w.dst = binary.AppendUvarint(w.dst, n) }

func (w *writer) text(s string) {
	w.number(uint64(len(s)))
	w.dst = append(w.dst, s...)
}

// time writes an instant with its distance to UTC, which JSON shows too.
func (w *writer) time(t time.Time) {
	_, offset := t.Zone()
	w.dst = binary.AppendVarint(w.dst, t.Unix())
	w.number(uint64(t.Nanosecond()))
	w.dst = binary.AppendVarint(w.dst, int64(offset))
}

func (w *writer) optionalText(flag uint64, s string) {
	if w.flags&flag != 0 {
		w.text(s)
	}
}

func (w *writer) optionalTime(flag uint64, t time.Time) {
	if w.flags&flag != 0 {
		w.time(t)
	}
}

// reader reads a record from its beginning. After a fault, all that it reads is zero.
type reader struct {
	rest  string
	flags uint64
	bad   bool
}

func (r *reader) fail() {
	r.rest, r.bad = "", true
}

func (r *reader) fault() error {
	if r.bad {
		return damaged()
	}
	return nil
}

// end returns an error if the record was damaged, or goes on.
func (r *reader) end() error {
	if r.rest != "" {
		r.bad = true
	}
	return r.fault()
}

// head reads the version and the flags, all of which must be lower than a limit.
func (r *reader) head(limit uint64) {
	if r.byte() != version {
		r.fail()
	}
	if r.flags = r.number(); r.flags >= limit {
		r.fail()
	}
}

func (r *reader) byte() byte {
	if r.rest == "" {
		r.fail()
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) number() uint64 {
	var n uint64
	for shift := 0; shift < 64; shift += 7 {
		b := r.byte()
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
	r.fail()
	return 0
}

func (r *reader) signed() int64 {
	n := r.number()
	return int64(n>>1) ^ -int64(n&1)
}

// count reads how many things follow, each of at least one byte.
func (r *reader) count() int {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	n := r.count()
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *reader) time() time.Time {
	seconds, nanos, offset := r.signed(), r.number(), r.signed()
	switch {
	case r.bad:
		return time.Time{}
	case offset == 0:
		return time.Unix(seconds, int64(nanos)).UTC()
	}
	return time.Unix(seconds, int64(nanos)).In(time.FixedZone("", int(offset)))
}

func (r *reader) optionalText(flag uint64) string {
	if r.flags&flag == 0 {
		return ""
	}
	return r.text()
}

func (r *reader) optionalTime(flag uint64) time.Time {
	if r.flags&flag == 0 {
		return time.Time{}
	}
	return r.time()
}
