package extauthz

import (
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// appendResponse is the only place where a CheckResponse is made. Envoy lets a request pass whenever the status code is 0,
// even when it is not set or a denied_response stands beside it, so the code is 0 only in the branch of an allow.
//
// Messages are written by the numbers that their fields have in Envoy's definitions. Fields that are empty are left out,
// which protobuf reads as the same.
func appendResponse(b []byte, d *authz.Decision) []byte {
	if d.Allowed() {
		b, start := open(append(b, statusOK...), 3) // ok_response
		b = appendAllow(b, d)
		return appendMetadata(shut(b, start), 4, &d.Answer)
	}
	b, start := open(append(b, statusDenied...), 2) // denied_response
	b = appendDenial(b, d)
	return appendMetadata(shut(b, start), 4, &d.Answer)
}

// The status of an answer, with its code.
var (
	statusOK     = appendCode(nil, codes.OK)
	statusDenied = appendCode(nil, codes.PermissionDenied)
)

func appendCode(b []byte, code codes.Code) []byte {
	b, start := open(b, 1)
	if code != codes.OK {
		b = appendNumber(b, 1, uint64(code))
	}
	return shut(b, start)
}

func appendAllow(b []byte, d *authz.Decision) []byte {
	b = appendHeaders(b, 2, d.Headers, toUpstream)
	b = appendTexts(b, 5, d.RemoveRequestHeaders)
	b = appendHeaders(b, 6, d.ResponseHeaders, toClient)
	for _, p := range d.SetQueryParameters {
		b = appendPair(b, 7, p)
	}
	return appendTexts(b, 8, d.RemoveQueryParameters)
}

func appendDenial(b []byte, d *authz.Decision) []byte {
	b, start := open(b, 1)
	b = shut(appendNumber(b, 1, uint64(d.HTTPStatus())), start)
	b = appendHeaders(b, 2, d.Headers, toDenied)
	if !d.Headers.Has("x-authz-reason") {
		b = appendHeaders(b, 2, authz.Headers{{Name: "x-authz-reason", Value: string(d.DeniedFor())}}, toDenied)
	}
	return appendText(b, 3, d.Body)
}

// destination is where headers go. Envoy treats further values of one name differently in each.
type destination int

const (
	toUpstream destination = iota // values after the first are appended to it, with commas
	toClient                      // of an allowed request: a value that is set replaces the ones before it
	toDenied                      // to the client of a denied request: values stay apart, all of them set
)

// appendHeaders says of every name that our value replaces what is there. Several values of one name reach each
// destination whole, in the way that works there.
func appendHeaders(b []byte, number protowire.Number, in authz.Headers, to destination) []byte {
	for i, h := range in {
		add := to == toUpstream && in[:i].Has(h.Name) || to == toClient && (in[:i].Has(h.Name) || in[i+1:].Has(h.Name))
		var start int
		b, start = open(b, number)
		b = appendPair(b, 1, h)
		if add {
			b = append(b, optionAdd...)
		} else {
			b = append(b, optionSet...)
		}
		b = shut(b, start)
	}
	return b
}

// What a header does to one that is there: append, a BoolValue, and append_action. Both are written because releases of
// Envoy differ in which of them they heed, and either one alone lets a client's value survive in some. The action of
// appending is 0, and so is not written.
var (
	optionAdd = []byte{2<<3 | byte(protowire.BytesType), 2, 1<<3 | byte(protowire.VarintType), 1}
	optionSet = []byte{2<<3 | byte(protowire.BytesType), 0, 3<<3 | byte(protowire.VarintType), overwriteIfExistsOrAdd}
)

const overwriteIfExistsOrAdd = 2

// appendPair writes a message of a name and a value: that of a header, or of a query parameter.
func appendPair(b []byte, number protowire.Number, h authz.Header) []byte {
	b, start := open(b, number)
	b = appendText(b, 1, h.Name)
	return shut(appendText(b, 2, h.Value), start)
}

func appendTexts(b []byte, number protowire.Number, in []string) []byte {
	for _, s := range in {
		b = protowire.AppendTag(b, number, protowire.BytesType)
		b = protowire.AppendString(b, text(s))
	}
	return b
}

// text makes a text fit for protobuf, which refuses to read a message with one that is not UTF-8. A policy may have
// copied it from the request, and then a denial would become an error.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

func appendText(b []byte, number protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, number, protowire.BytesType)
	return protowire.AppendString(b, text(s))
}

func appendNumber(b []byte, number protowire.Number, v uint64) []byte {
	b = protowire.AppendTag(b, number, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

// open begins a message in a field, and shut ends it. Its length stands before it and is known only then. Most messages
// are short enough for the one byte that is left for it; a longer one makes room.
func open(b []byte, number protowire.Number) ([]byte, int) {
	b = protowire.AppendTag(b, number, protowire.BytesType)
	b = append(b, 0)
	return b, len(b)
}

func shut(b []byte, start int) []byte {
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
