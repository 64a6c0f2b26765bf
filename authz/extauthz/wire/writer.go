package wire

import (
	"math"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// begin begins a message in a field, and end ends it. The length of a message precedes it, but is known only at the end. begin
// leaves one byte for it, which is enough for most messages; end moves a longer message to make room.
func begin(b []byte, t tag) ([]byte, int) {
	b = protowire.AppendVarint(b, uint64(t))
	b = append(b, 0)
	return b, len(b)
}

func end(b []byte, start int) []byte {
	n := len(b) - start
	if n < 0x80 {
		b[start-1] = byte(n)
		return b
	}
	more := protowire.SizeVarint(uint64(n)) - 1
	b = append(b, make([]byte, more)...)
	copy(b[start+more:], b[start:start+n])
	protowire.AppendVarint(b[:start-1], uint64(n))
	return b
}

// appendText writes a text, unless it is empty.
func appendText(b []byte, t tag, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(b, t, s)
}

// appendString writes a text, even an empty one.
func appendString(b []byte, t tag, s string) []byte {
	s = valid(s)
	return append(appendLength(b, t, len(s)), s...)
}

// valid makes a text UTF-8, because protobuf refuses a message with a text that is not. A policy may copy text from a
// request, and then a denial must not become an error.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

func appendLength(b []byte, t tag, n int) []byte {
	return protowire.AppendVarint(protowire.AppendVarint(b, uint64(t)), uint64(n))
}

func appendNumber(b []byte, t tag, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendVarint(b, uint64(t)), v)
}

func appendDouble(b []byte, t tag, v float64) []byte {
	return protowire.AppendFixed64(protowire.AppendVarint(b, uint64(t)), math.Float64bits(v))
}
