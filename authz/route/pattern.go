package route

import (
	"strings"
	"unicode/utf8"
)

// pattern is the set of paths that a template matches.
type pattern struct {
	segments []segment
	rest     bool // ends in **: any number of further segments, or none
}

// segment matches one segment of a path: the fixed text, or if it is open, any text between before and after that is not empty.
type segment struct {
	before, after string // a fixed text is in before
	open          bool
	name          string // of the text between, "" for *
}

func (s *segment) matches(text string) bool {
	if !s.open {
		return s.before == text
	}
	return len(text) > len(s.before)+len(s.after) && strings.HasPrefix(text, s.before) && strings.HasSuffix(text, s.after)
}

// between returns the part of a matching text that the name stands for. Folding keeps the number of letters, but not of bytes.
func (s *segment) between(text string) string {
	if s.before == "" && s.after == "" {
		return text
	}
	letters := []rune(text)
	return string(letters[utf8.RuneCountInString(s.before) : len(letters)-utf8.RuneCountInString(s.after)])
}

// within reports whether s matches only texts that o matches.
func (s *segment) within(o *segment) bool {
	if !s.open {
		return o.matches(s.before)
	}
	return o.open && strings.HasPrefix(s.before, o.before) && strings.HasSuffix(s.after, o.after)
}

// meets reports whether some text matches both.
func (s *segment) meets(o *segment) bool {
	switch {
	case !s.open:
		return o.matches(s.before)
	case !o.open:
		return s.matches(o.before)
	}
	return (strings.HasPrefix(s.before, o.before) || strings.HasPrefix(o.before, s.before)) &&
		(strings.HasSuffix(s.after, o.after) || strings.HasSuffix(o.after, s.after))
}

func (p *pattern) matches(path []string) bool {
	if len(path) < len(p.segments) || len(path) > len(p.segments) && !p.rest {
		return false
	}
	for i := range p.segments {
		if !p.segments[i].matches(path[i]) {
			return false
		}
	}
	return true
}

// within reports whether p matches only paths that o matches.
func (p *pattern) within(o *pattern) bool {
	if len(p.segments) < len(o.segments) || !o.rest && (p.rest || len(p.segments) > len(o.segments)) {
		return false
	}
	for i := range o.segments {
		if !p.segments[i].within(&o.segments[i]) {
			return false
		}
	}
	return true
}

// meets reports whether some path matches both.
func (p *pattern) meets(o *pattern) bool {
	if len(p.segments) < len(o.segments) && !p.rest || len(o.segments) < len(p.segments) && !o.rest {
		return false
	}
	for i := range min(len(p.segments), len(o.segments)) {
		if !p.segments[i].meets(&o.segments[i]) {
			return false
		}
	}
	return true
}

// overlap returns the paths that match both patterns, which must meet. It returns false if no pattern describes them: those that
// begin like one segment and end like another.
func (p *pattern) overlap(o *pattern) (pattern, bool) {
	long, short := p, o
	if len(p.segments) < len(o.segments) {
		long, short = o, p
	}
	out := pattern{segments: append([]segment(nil), long.segments...), rest: p.rest && o.rest}
	for i := range short.segments {
		a, b := &long.segments[i], &short.segments[i]
		switch {
		case a.within(b):
		case b.within(a):
			out.segments[i] = *b
		default:
			return pattern{}, false
		}
	}
	return out, true
}
