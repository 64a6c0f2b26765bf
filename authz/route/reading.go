package route

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// paths are the settings of data.tollkeeper.paths: what the servers behind the proxy make of a path. The zero value is the
// default.
type paths struct {
	stripMatrix, keepMatrix   bool // else a semicolon is refused
	exactCase                 bool // else letters that differ only in case are one
	keepEncodedSlash          bool // else it is refused
	refuseRepeated, keepEmpty bool // else repeated slashes are one
	exactTrailing             bool // else a slash at the end plays no part
	ignoreExtension           bool // else the last segment's extension counts
}

// odd is what a lenient server could read in another way.
type odd uint8

const (
	oddEncoded odd = 1 << iota // escapes are left after decoding
	oddEnding                  // a segment ends in dots or spaces, or in an NTFS stream
	oddUnicode                 // it has characters beyond ASCII
	oddMark                    // it has a ? or a #, encoded: some servers cut the path there
)

// read cuts a path as it came, up to its query, into decoded segments, which it appends to room.
func (p *paths) read(raw string, room []string) (segments []string, found odd, fault authz.PathFault) {
	raw, _, _ = strings.Cut(raw, "?")
	if raw == "" || raw[0] != '/' {
		return nil, 0, authz.PathNotAbsolute
	}
	segments = room
	for rest, more := raw[1:], true; more; {
		var text string
		text, rest, more = strings.Cut(rest, "/")
		if !isPlain(text) {
			var o odd
			if text, o, fault = p.segment(text); fault != "" {
				return nil, 0, fault
			}
			found |= o
		}
		if text == "" {
			switch {
			case !more && (!p.exactTrailing || len(segments) == 0):
				continue // the slash at the end
			case more && p.refuseRepeated:
				return nil, 0, authz.PathRepeatedSlash
			case more && !p.keepEmpty:
				continue
			}
		}
		segments = append(segments, text)
	}
	if last := len(segments) - 1; p.ignoreExtension && last >= 0 {
		segments[last] = withoutExtension(segments[last])
	}
	return segments, found, ""
}

// plain are the bytes that mean the same to every server, wherever they stand in a segment.
var plain = func() (t [256]bool) {
	for c := 0x21; c < 0x7f; c++ {
		t[c] = !strings.ContainsRune(`.;%\/:#`, rune(c))
	}
	return t
}()

func isPlain(segment string) bool {
	for i := 0; i < len(segment); i++ {
		if !plain[segment[i]] {
			return false
		}
	}
	return true
}

// segment decodes one segment. It returns a fault if servers would differ in what it means.
func (p *paths) segment(raw string) (text string, found odd, fault authz.PathFault) {
	if p.stripMatrix {
		raw = cutMatrix(raw)
	}
	text, ok := unescape(raw)
	if !ok || strings.Contains(raw, "#") {
		return "", 0, authz.PathUnreadable
	}
	if fault := p.judge(text); fault != "" {
		return "", 0, fault
	}
	deep := unescapeAll(text)
	if deep != text {
		if fault := p.judge(deep); fault != "" {
			return "", 0, fault
		}
		found |= oddEncoded
	}
	wide := deep
	if !isASCII(deep) { // or text, which is then not ASCII either
		found |= oddUnicode
		wide = norm.NFKC.String(deep)
	}
	if cutEnding(text) != text || cutEnding(deep) != deep || cutEnding(wide) != wide {
		found |= oddEnding
	}
	if strings.ContainsAny(wide, "?#") { // so has wide what text or deep has
		found |= oddMark
	}
	return text, found, ""
}

// judge looks for parts of a decoded segment that servers read in different ways.
func (p *paths) judge(text string) authz.PathFault {
	if !utf8.ValidString(text) {
		return authz.PathUnreadable
	}
	for part := range strings.SplitSeq(text, "/") {
		if name := cutMatrix(part); name == "." || name == ".." {
			return authz.PathDotSegment
		}
	}
	for _, r := range text {
		switch {
		case r == '\\':
			return authz.PathBackslash
		case r < ' ' || 0x7f <= r && r < 0xa0:
			return authz.PathControlCharacter
		case r == ';' && !p.keepMatrix:
			return authz.PathMatrix
		case r == '/' && !p.keepEncodedSlash:
			return authz.PathEncodedSlash
		}
	}
	return ""
}

// cutMatrix cuts a segment at its first semicolon, where servlet containers begin its parameters.
func cutMatrix(segment string) string {
	name, _, _ := strings.Cut(segment, ";")
	return name
}

// cutEnding cuts what Windows cuts from a name: dots and spaces at the end, and the name of a stream.
func cutEnding(segment string) string {
	if name, _, found := strings.Cut(segment, "::$"); found {
		segment = name
	}
	return strings.TrimRight(segment, ". ")
}

// withoutExtension cuts the last dot of a segment and the letters and digits after it.
func withoutExtension(segment string) string {
	dot := strings.LastIndexByte(segment, '.')
	if dot <= 0 || dot == len(segment)-1 {
		return segment
	}
	for i := dot + 1; i < len(segment); i++ {
		if c := segment[i] | 0x20; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return segment
		}
	}
	return segment[:dot]
}

// unescape decodes the escapes of a path once. It returns false if one is broken.
func unescape(s string) (string, bool) {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s, true
	}
	out := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, s[i])
			continue
		}
		c, ok := escaped(s[i:])
		if !ok {
			return "", false
		}
		out = append(out, c)
		i += 2
	}
	return string(out), true
}

// escapes is made once: to make it takes longer than to use it, and a path can have thousands of segments.
var escapes = strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23", " ", "%20")

// escapePath writes a decoded path, or a part of one, as a client would send it.
func escapePath(text string) string { return escapes.Replace(text) }

// unescapeAll decodes escapes until none is left. Broken escapes stay as they are.
func unescapeAll(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		out = append(out, s[i])
		for n := len(out) - 3; n >= 0; n = len(out) - 3 { // a decoded character may complete another escape
			c, ok := escaped(out[n:])
			if !ok {
				break
			}
			out = append(out[:n], c)
		}
	}
	return string(out)
}

// escaped returns the character of the escape at the beginning of s.
func escaped[T string | []byte](s T) (byte, bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	hi, lo := unhex(s[1]), unhex(s[2])
	return hi<<4 | lo, hi < 16 && lo < 16
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// foldAll returns segments in the form in which patterns are compared.
func (p *paths) foldAll(segments []string) []string {
	if p.exactCase {
		return segments
	}
	out := make([]string, len(segments))
	for i, s := range segments {
		out[i] = folded(s)
	}
	return out
}
