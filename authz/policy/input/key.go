package input

import (
	"encoding/binary"
	"encoding/json"
	"math"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// MaxKey is the longest key in bytes. If the key would be longer, for example because the policy reads a large body, there is no
// key.
const MaxKey = 4096

// Key is the document as bytes: documents with equal keys are equal. The zero value is empty, and a Key may be filled again. It
// may be used by one goroutine at a time.
type Key struct {
	buf     []byte
	tooLong bool
}

// Fill makes the key of a request and its facts. It returns false if the document is too long or not JSON.
func (k *Key) Fill(refs *Refs, r *authz.Request, f *authz.Facts) bool {
	k.buf, k.tooLong = k.buf[:0], false
	return walk(k, refs, r, f) == nil && !k.tooLong
}

// Bytes returns the key. They are valid until the next Fill.
func (k *Key) Bytes() []byte { return k.buf }

var _ sink = (*Key)(nil)

// Every part begins with a byte for its kind. If its length varies, the length follows. The name of a field follows its value. So
// part of a text cannot be confused with another field.

func (k *Key) object(string, int) { k.buf = append(k.buf, '{') }
func (k *Key) array(string, int)  { k.buf = append(k.buf, '(') }

func (k *Key) end(field string) {
	k.buf = append(k.buf, '}')
	k.bytes(':', field)
}

func (k *Key) null(field string) {
	k.buf = append(k.buf, '0')
	k.bytes(':', field)
}

func (k *Key) text(field, s string) {
	k.bytes('"', s)
	k.bytes(':', field)
}

func (k *Key) base64(field, s string) { k.text(field, s) }

func (k *Key) integer(field string, n int64) {
	k.buf = append(k.buf, '#')
	k.buf = binary.AppendVarint(k.buf, n)
	k.bytes(':', field)
}

func (k *Key) float(field string, n float64) {
	k.buf = append(k.buf, 'd')
	k.buf = binary.LittleEndian.AppendUint64(k.buf, math.Float64bits(n))
	k.bytes(':', field)
}

func (k *Key) number(field string, n json.Number) {
	k.bytes('n', string(n))
	k.bytes(':', field)
}

func (k *Key) boolean(field string, b bool) {
	if b {
		k.buf = append(k.buf, 't')
	} else {
		k.buf = append(k.buf, 'f')
	}
	k.bytes(':', field)
}

func (k *Key) texts(field string, list []string) {
	k.buf = append(k.buf, '[')
	k.buf = binary.AppendUvarint(k.buf, uint64(len(list)))
	for _, s := range list {
		k.bytes('"', s)
	}
	k.bytes(':', field)
}

// sorted is true: the fields of an object have no order, and its key must have one.
func (k *Key) sorted() bool { return true }

func (k *Key) bytes(kind byte, s string) {
	if len(k.buf)+len(s) > MaxKey {
		k.tooLong = true
		return
	}
	k.buf = append(k.buf, kind)
	k.buf = binary.AppendUvarint(k.buf, uint64(len(s)))
	k.buf = append(k.buf, s...)
}
