package model

import (
	"slices"
	"strings"
)

// pattern is the segments of a path of a route. The server has its own: see package route, which doctor does not import. A test with
// random patterns holds that both take the same paths.
type pattern []segment

// segment is a segment of a pattern. A name or a star stands for any text between before and after. A literal is its before.
type segment struct {
	kind          kind
	before, after string
}

type kind int

const (
	literal kind = iota
	single       // one segment
	rest         // any number of segments or none; only at the end
)

// other stands for a text that no pattern names: it is in the private use area of Unicode.
const other = "\uE000"

// parsePattern reads a path of a route. It refuses what it does not understand.
func parsePattern(text string) (pattern, bool) {
	text, ok := strings.CutPrefix(text, "/")
	if !ok {
		return nil, false
	}
	var out pattern
	parts := splitPath(text)
	for i, part := range parts {
		s, ok := parseSegment(part)
		if !ok || s.kind == rest && i != len(parts)-1 {
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

// splitPath splits a path without its first slash. A slash at the end does not count.
func splitPath(text string) []string {
	if text = strings.TrimSuffix(text, "/"); text == "" {
		return nil
	}
	return strings.Split(text, "/")
}

func parseSegment(text string) (segment, bool) {
	switch text {
	case "**":
		return segment{kind: rest}, true
	case "*":
		return segment{kind: single}, true
	}
	before, after, named := strings.Cut(text, "{")
	if !named {
		return segment{before: text}, !strings.ContainsAny(text, "*}")
	}
	_, after, closed := strings.Cut(after, "}")
	return segment{single, before, after}, closed && !strings.ContainsAny(before+after, "{}*")
}

// takes reports whether the pattern matches the segments of a path.
func (p pattern) takes(path []string) bool {
	for i, s := range p {
		switch {
		case s.kind == rest:
			return true
		case i >= len(path) || !s.takes(path[i]):
			return false
		}
	}
	return len(p) == len(path)
}

func (s *segment) takes(text string) bool {
	if s.kind == literal {
		return text == s.before
	}
	return len(text) > len(s.before)+len(s.after) && strings.HasPrefix(text, s.before) && strings.HasSuffix(text, s.after)
}

// maxWitnesses bounds the examples of one pattern, because a file may be made to keep doctor busy.
const maxWitnesses = 32

// witnesses are paths that the pattern matches. Their free parts are texts that no pattern names, and up to longest segments stand
// for **. If other patterns match all of them, the other patterns match all that this one does.
func (p pattern) witnesses(longest int) [][]string {
	var path []string
	for _, s := range p {
		switch s.kind {
		case literal:
			path = append(path, s.before)
		case single:
			path = append(path, s.before+other+s.after)
		}
	}
	out := [][]string{path}
	if len(p) == 0 || p[len(p)-1].kind != rest {
		return out
	}
	for len(path) <= longest && len(out) < maxWitnesses {
		path = append(slices.Clone(path), other)
		out = append(out, path)
	}
	return out
}

// meetsPrefix reports whether the pattern may match a path that begins with a text. It says so if it is not certain.
func (p pattern) meetsPrefix(prefix string) bool {
	text, ok := strings.CutPrefix(prefix, "/")
	if !ok {
		return true
	}
	parts := strings.Split(text, "/")
	whole, last := parts[:len(parts)-1], parts[len(parts)-1]
	for i, part := range whole {
		switch {
		case i >= len(p):
			return false
		case p[i].kind == rest:
			return true
		case !p[i].takes(part):
			return false
		}
	}
	if len(p) <= len(whole) {
		return last == "" // the pattern without a slash at its end
	}
	return p[len(whole)].mayBegin(last)
}

// mayBegin reports whether a segment may match a text that begins with a prefix.
func (s *segment) mayBegin(prefix string) bool {
	if s.kind == literal {
		return strings.HasPrefix(s.before, prefix)
	}
	return strings.HasPrefix(prefix, s.before) || strings.HasPrefix(s.before, prefix)
}
