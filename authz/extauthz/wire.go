package extauthz

import (
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// tag is what stands before a field on the wire: its number, shifted above its wire type. A field that comes with another
// wire type than it is known for counts as one that is not known, so a switch on tags reads a message as protobuf does.
type tag uint64

// The wire types of the fields that are read here.
const (
	aNumber = tag(protowire.VarintType)
	aDouble = tag(protowire.Fixed64Type)
	aText   = tag(protowire.BytesType) // or a message
)

// field is one field of a message. What stands in it is in text or in number, by its wire type.
type field struct {
	tag    tag
	text   string
	number uint64
}

// reader reads messages. They are strings, so that the texts in them can be parts of them and nobody has to copy any.
type reader struct {
	// bad says that something could not be read: the rest was not, and what was is worth nothing.
	bad bool
}

// cut cuts the first field off a message that is not empty. Of one that cannot be read nothing is left.
func (r *reader) cut(s string) (f field, rest string) {
	v, s := r.varint(s)
	if n := v >> 3; n < uint64(protowire.MinValidNumber) || n > uint64(protowire.MaxValidNumber) {
		r.bad = true
	}
	f.tag = tag(v)
	switch v & 7 {
	case uint64(aText):
		f.text, s = r.bytes(s)
	case uint64(aNumber):
		f.number, s = r.varint(s)
	case uint64(aDouble):
		f.number, s = r.fixed64(s)
	default:
		s = r.pass(v, s, protowire.DefaultRecursionLimit)
	}
	if r.bad {
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
	r.bad = true
	return 0, ""
}

// bytes reads a length and as many bytes.
func (r *reader) bytes(s string) (text, rest string) {
	n, s := r.varint(s)
	if n > uint64(len(s)) {
		r.bad = true
		return "", ""
	}
	return s[:n], s[n:]
}

// fixed64 reads eight bytes, the lowest first.
func (r *reader) fixed64(s string) (v uint64, rest string) {
	if len(s) < 8 {
		r.bad = true
		return 0, ""
	}
	for i := range 8 {
		v |= uint64(s[i]) << (8 * i)
	}
	return v, s[8:]
}

// pass passes over the value after a tag. Groups, which nobody sends any more, are still read to their end.
func (r *reader) pass(v uint64, s string, depth int) string {
	switch protowire.Type(v & 7) {
	case protowire.VarintType:
		_, s = r.varint(s)
	case protowire.BytesType:
		_, s = r.bytes(s)
	case protowire.Fixed64Type:
		_, s = r.fixed64(s)
	case protowire.Fixed32Type:
		if len(s) < 4 {
			r.bad = true
			return ""
		}
		return s[4:]
	case protowire.StartGroupType:
		return r.passGroup(v>>3, s, depth)
	default:
		r.bad = true
		return ""
	}
	return s
}

func (r *reader) passGroup(number uint64, s string, depth int) string {
	for depth >= 0 && !r.bad {
		var v uint64
		v, s = r.varint(s)
		n := v >> 3
		if n < uint64(protowire.MinValidNumber) || n > math.MaxInt32 { // inside a group protobuf allows more numbers
			break
		}
		if protowire.Type(v&7) == protowire.EndGroupType {
			if n != number {
				break
			}
			return s
		}
		s = r.pass(v, s, depth-1)
	}
	r.bad = true
	return ""
}

// utf8 holds a text to what protobuf asks of one. Bytes, and texts in messages that are passed over, are left alone.
func (r *reader) utf8(s string) string {
	if !utf8.ValidString(s) {
		r.bad = true
	}
	return s
}

// entry reads an entry of a map of texts. A part that was not sent is empty.
func (r *reader) entry(s string) (key, value string) {
	for s != "" {
		var f field
		switch f, s = r.cut(s); f.tag {
		case 1<<3 | aText:
			key = r.utf8(f.text)
		case 2<<3 | aText:
			value = r.utf8(f.text)
		}
	}
	return key, value
}

// put reads an entry into a map, which is made for the first.
func (r *reader) put(m map[string]string, s string) map[string]string {
	if m == nil {
		m = make(map[string]string)
	}
	key, value := r.entry(s)
	m[key] = value
	return m
}
