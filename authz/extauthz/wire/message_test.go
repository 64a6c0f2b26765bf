package wire

import "google.golang.org/protobuf/encoding/protowire"

// in returns a message with one field that holds b.
func in(b []byte, number protowire.Number) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), b)
}

// text returns a message with one text, which need not be UTF-8.
func text(number protowire.Number, s string) []byte { return in([]byte(s), number) }

// number returns a message with one number.
func number(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

// fixed64 returns a message with one number of eight bytes.
func fixed64(n protowire.Number, v uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(nil, n, protowire.Fixed64Type), v)
}

// twice returns a message that goes on with another.
func twice(a, b []byte) []byte { return append(append([]byte{}, a...), b...) }

// textEntry returns a message with one entry of a map of texts, or with one header.
func textEntry(n protowire.Number, key, value string) []byte {
	return in(twice(text(1, key), text(2, value)), n)
}

// messageEntry returns a message with one entry of a map of messages.
func messageEntry(n protowire.Number, key string, value []byte) []byte {
	return in(twice(text(1, key), in(value, 2)), n)
}
