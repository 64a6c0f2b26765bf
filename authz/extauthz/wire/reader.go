package wire

import (
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is one field of a message. Its content is in text or in number, depending on its wire type.
type field struct {
	tag    tag
	text   string
	number uint64
}

// reader reads messages. Messages are strings, so that the texts in them need no copies.
type reader struct {
	// malformed reports that the message is malformed. The reader stops there, and its results must not be used.
	malformed bool
}

// next reads the first field of a message that is not empty. If the message is malformed, the rest is empty.
func (r *reader) next(s string) (f field, rest string) {
	v, s := r.varint(s)
	if n := v >> 3; n < uint64(protowire.MinValidNumber) || n > uint64(protowire.MaxValidNumber) {
		r.malformed = true
	}
	f.tag = tag(v)
	switch v & 7 {
	case uint64(bytesType):
		f.text, s = r.bytes(s)
	case uint64(varintType):
		f.number, s = r.varint(s)
	case uint64(fixed64Type):
		f.number, s = r.fixed64(s)
	default:
		s = r.skip(v, s, protowire.DefaultRecursionLimit)
	}
	if r.malformed {
		return field{}, ""
	}
	return f, s
}

// varint reads a number of up to 64 bits.
func (r *reader) varint(s string) (v uint64, rest string) {
	if s != "" && s[0] < 0x80 {
		return uint64(s[0]), s[1:]
	}
	for i := 0; i < len(s) && i < 10; i++ {
		b := s[i]
		if i == 9 && b > 1 {
			break
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return v, s[i+1:]
		}
	}
	r.malformed = true
	return 0, ""
}

// bytes reads a length and that many bytes.
func (r *reader) bytes(s string) (text, rest string) {
	n, s := r.varint(s)
	if n > uint64(len(s)) {
		r.malformed = true
		return "", ""
	}
	return s[:n], s[n:]
}

// fixed64 reads eight bytes in little-endian order.
func (r *reader) fixed64(s string) (v uint64, rest string) {
	if len(s) < 8 {
		r.malformed = true
		return 0, ""
	}
	for i := range 8 {
		v |= uint64(s[i]) << (8 * i)
	}
	return v, s[8:]
}

// skip skips the value after a tag. Groups are deprecated, but protobuf still skips them too.
func (r *reader) skip(v uint64, s string, depth int) string {
	switch protowire.Type(v & 7) {
	case protowire.VarintType:
		_, s = r.varint(s)
	case protowire.BytesType:
		_, s = r.bytes(s)
	case protowire.Fixed64Type:
		_, s = r.fixed64(s)
	case protowire.Fixed32Type:
		if len(s) < 4 {
			r.malformed = true
			return ""
		}
		return s[4:]
	case protowire.StartGroupType:
		return r.skipGroup(v>>3, s, depth)
	default:
		r.malformed = true
		return ""
	}
	return s
}

func (r *reader) skipGroup(number uint64, s string, depth int) string {
	for depth >= 0 && !r.malformed {
		var v uint64
		v, s = r.varint(s)
		n := v >> 3
		if n < uint64(protowire.MinValidNumber) || n > math.MaxInt32 { // protobuf allows more numbers inside a group
			break
		}
		if protowire.Type(v&7) == protowire.EndGroupType {
			if n != number {
				break
			}
			return s
		}
		s = r.skip(v, s, depth-1)
	}
	r.malformed = true
	return ""
}

// utf8 returns a text, which must be UTF-8. Protobuf requires this of texts, but not of bytes or of texts in unknown messages.
func (r *reader) utf8(s string) string {
	if !utf8.ValidString(s) {
		r.malformed = true
	}
	return s
}

// entry reads an entry of a map of texts. A key or a value that was not sent is empty.
func (r *reader) entry(s string) (key, value string) {
	for s != "" {
		var f field
		switch f, s = r.next(s); f.tag {
		case entryKey:
			key = r.utf8(f.text)
		case entryValue:
			value = r.utf8(f.text)
		}
	}
	return key, value
}

// put reads an entry into a map, and makes the map for the first one.
func (r *reader) put(m map[string]string, s string) map[string]string {
	if m == nil {
		m = make(map[string]string)
	}
	key, value := r.entry(s)
	m[key] = value
	return m
}
