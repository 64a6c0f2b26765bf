package wire

import (
	"fmt"
	"math"
)

// oddMessages are messages that a decoder reads wrong if it is a little too simple. The numbers are those of the fields, from
// the outermost message (1, attributes) inwards.
func oddMessages() map[string][]byte {
	http := func(b ...byte) []byte { return in(in(in(b, 2), 4), 1) }
	source := func(b ...byte) []byte { return in(in(b, 1), 1) }
	socket := func(b ...byte) []byte { return source(in(in(b, 1), 1)...) }

	metadata := func(value []byte) []byte { return in(in(messageEntry(1, "f", messageEntry(1, "k", value)), 11), 1) }
	double := func(v float64) []byte { return fixed64(2, math.Float64bits(v)) }
	var many []byte
	for i := range 3 * fewHeaders {
		many = append(many, textEntry(3, fmt.Sprint("x-", i%fewHeaders, i%2), fmt.Sprint(i))...)
	}
	return map[string][]byte{
		"a message twice is merged":          twice(http(text(2, "GET")...), http(text(4, "/a")...)),
		"the last text counts":               http(twice(text(4, "/a"), text(4, "/b"))...),
		"an empty text counts":               http(twice(text(4, "/a"), in(nil, 4))...),
		"a known number, another type":       http(twice(text(4, "/a"), number(4, 7))...),
		"a text where a number is known":     http(text(9, "7")...),
		"a tag with needless bytes":          http(0xa2, 0x80, 0x00, 0x01, 'a'),
		"a field number above the highest":   http(0x82, 0x80, 0x80, 0x80, 0x10, 0x00),
		"field number 0":                     http(0x02, 0x00),
		"wire types 6 and 7":                 http(0x0f),
		"a group":                            http(0xa3, 0x06, 0x08, 0x01, 0xa4, 0x06),
		"a group of a known number":          http(0x23, 0x08, 0x01, 0x24),
		"a group in a group":                 http(0xa3, 0x06, 0x0b, 0x0c, 0xa4, 0x06),
		"a group ended by another":           http(0xa3, 0x06, 0x0b, 0xa4, 0x06, 0x0c),
		"a group without an end":             http(0xa3, 0x06, 0x08, 0x01),
		"a group with no field number":       http(0xa3, 0x06, 0x00, 0xa4, 0x06),
		"a high number in a group":           http(0xa3, 0x06, 0x80, 0x80, 0x80, 0x80, 0x20, 0x01, 0xa4, 0x06),
		"an end without a group":             http(0x24),
		"a fixed64 that is short":            http(0x09, 1, 2, 3),
		"fixed fields":                       http(0x0d, 1, 2, 3, 4, 0x09, 1, 2, 3, 4, 5, 6, 7, 8),
		"a number of ten bytes":              http(0x48, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"a number above 64 bits":             http(0x48, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02),
		"a number of eleven bytes":           http(0x48, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80, 0x00),
		"a text that is not UTF-8":           http(text(2, "\xff")...),
		"a surrogate is not UTF-8":           http(text(2, "\xed\xa0\x80")...),
		"bytes need not be UTF-8":            http(text(12, "\xff")...),
		"a header without a value":           http(in(text(1, "x-a"), 3)...),
		"a header without a name":            http(in(text(2, "v"), 3)...),
		"an empty header":                    http(in(nil, 3)...),
		"a header's name twice":              http(in(twice(text(1, "x-a"), text(1, "x-b")), 3)...),
		"a header twice":                     http(twice(textEntry(3, "x-a", "1"), textEntry(3, "x-a", "2"))...),
		"many headers, some twice":           http(many...),
		"a header in two cases":              http(twice(textEntry(3, "X-A", "1"), textEntry(3, "x-a", "2"))...),
		"a header's value as a number":       http(in(twice(text(1, "x-a"), number(2, 1)), 3)...),
		"a header that is not UTF-8":         http(in(text(1, "\xff"), 3)...),
		"an empty list of headers":           http(twice(in(nil, 13), textEntry(3, "x-a", "1"))...),
		"a list of headers and a map":        http(twice(in(textEntry(1, "x-b", "1"), 13), textEntry(3, "x-a", "1"))...),
		"two lists of headers":               http(twice(in(textEntry(1, "x-b", "1"), 13), in(textEntry(1, "x-c", "1"), 13))...),
		"a raw value before a value":         http(in(in(twice(text(3, "raw"), text(2, "v")), 1), 13)...),
		"an empty raw value":                 http(in(in(twice(text(2, "v"), in(nil, 3)), 1), 13)...),
		"a time":                             in(in(in(twice(number(1, 5), number(2, 7)), 1), 4), 1),
		"a time without fields":              in(in(in(nil, 1), 4), 1),
		"a time before 1970":                 in(in(in(twice(number(1, 1<<64-5), number(2, 1<<64-1)), 1), 4), 1),
		"a time in two parts":                twice(in(in(in(number(1, 5), 1), 4), 1), in(in(in(number(2, 7), 1), 4), 1)),
		"a port twice, the name last":        socket(twice(number(3, 80), text(4, "http"))...),
		"a port twice, the number last":      socket(twice(text(4, "http"), number(3, 80))...),
		"port 0":                             socket(number(3, 0)...),
		"a port above 32 bits":               socket(number(3, 1<<32+80)...),
		"UDP":                                socket(number(1, 1)...),
		"an unknown protocol":                socket(number(1, 77)...),
		"a protocol above 32 bits":           socket(number(1, 1<<32+1)...),
		"TCP after UDP":                      socket(twice(number(1, 1), number(1, 0))...),
		"a namespace that is not UTF-8":      socket(text(7, "\xff")...),
		"a boolean above 1":                  socket(number(6, 1<<40)...),
		"an address twice":                   source(twice(in(in(text(2, "a"), 1), 1), in(in(number(3, 80), 1), 1))...),
		"a pipe after a socket":              source(in(twice(in(text(2, "a"), 1), in(text(1, "/p"), 2)), 1)...),
		"a socket, a pipe and a socket":      source(in(twice(twice(in(text(2, "a"), 1), in(nil, 2)), in(number(3, 1), 1)), 1)...),
		"a pipe's mode":                      source(in(in(twice(text(1, "/p"), number(2, 1<<32+8)), 2), 1)...),
		"an internal address":                source(in(in(twice(text(1, "l"), text(2, "e")), 3), 1)...),
		"an address of no kind":              source(in(nil, 1)...),
		"an empty peer":                      source(),
		"labels":                             source(twice(textEntry(3, "a", "1"), textEntry(3, "a", "2"))...),
		"a label as a number":                source(number(3, 1)...),
		"a TLS session twice":                twice(in(in(text(1, "a"), 12), 1), in(in(nil, 12), 1)),
		"extensions twice":                   twice(in(textEntry(10, "a", "1"), 1), in(textEntry(10, "b", "2"), 1)),
		"metadata twice":                     twice(in(in(messageEntry(1, "a", messageEntry(1, "k", text(3, "v"))), 11), 1), in(in(messageEntry(1, "b", nil), 11), 1)),
		"metadata that is broken":            in(in([]byte{0x0a, 0x05}, 11), 1),
		"metadata that is not UTF-8":         in(in(messageEntry(1, "\xff", nil), 13), 1),
		"NaN":                                metadata(double(math.NaN())),
		"infinity":                           metadata(double(math.Inf(1))),
		"minus infinity":                     metadata(double(math.Inf(-1))),
		"a number, then an object":           metadata(twice(double(1), in(messageEntry(1, "a", double(2)), 5))),
		"an object twice":                    metadata(twice(in(messageEntry(1, "a", double(2)), 5), in(messageEntry(1, "b", double(3)), 5))),
		"a member twice":                     metadata(in(twice(messageEntry(1, "a", double(2)), messageEntry(1, "a", nil)), 5)),
		"a list twice":                       metadata(twice(in(in(double(2), 1), 6), in(in(nil, 1), 6))),
		"an empty list and an empty text":    metadata(in(twice(in(in(nil, 6), 1), in(in(nil, 3), 1)), 6)),
		"an object, then null":               metadata(twice(in(messageEntry(1, "a", double(2)), 5), number(1, 0))),
		"a value twice in its entry":         in(in(in(append(text(1, "f"), twice(in(messageEntry(1, "a", double(1)), 2), in(messageEntry(1, "b", nil), 2))...), 1), 11), 1),
		"typed metadata twice":               in(in(twice(messageEntry(2, "a", text(1, "type.googleapis.com/x")), messageEntry(2, "a", text(1, "y"))), 11), 1),
		"a type that is not UTF-8":           in(in(messageEntry(2, "a", text(1, "\xff")), 11), 1),
		"an unknown attribute":               in(text(99, "\xff"), 1),
		"something after the request":        twice(http(text(2, "GET")...), text(7, "x")),
		"something broken after the request": twice(http(text(2, "GET")...), []byte{0xff}),
	}
}
