package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// parsePattern reads a template: fixed segments; {name} for one segment, also with text before or after it; * for one segment;
// and ** at the end for any number of segments or none. Fixed text is written decoded.
func parsePattern(template string) (*pattern, error) {
	if !strings.HasPrefix(template, "/") {
		return nil, errors.New("want a slash at the beginning")
	}
	p := &pattern{}
	if template == "/" {
		return p, nil
	}
	parts := strings.Split(template[1:], "/")
	for i, part := range parts {
		last := i == len(parts)-1
		if part == "**" && last {
			p.rest = true
			break
		}
		s, err := parseSegment(part, last)
		if err != nil {
			return nil, err
		}
		if s.name != "" && slices.ContainsFunc(p.segments, func(o segment) bool { return o.name == s.name }) {
			return nil, fmt.Errorf("the name {%s} is there twice", s.name)
		}
		p.segments = append(p.segments, s)
	}
	return p, nil
}

func parseSegment(text string, last bool) (segment, error) {
	var none segment
	before, inner, found := strings.Cut(text, "{")
	name, after, closed := strings.Cut(inner, "}")
	switch {
	case text == "" && !last:
		return none, errors.New("want a text between two slashes")
	case text == "*":
		return segment{open: true}, nil
	case text == "**":
		return none, errors.New("** can only be the last segment")
	case strings.Contains(text, "*"):
		return none, fmt.Errorf("in %q the star is not a whole segment: write a name instead, as in %q", text, strings.ReplaceAll(text, "*", "{name}"))
	case strings.ContainsAny(text, "?#"):
		return none, fmt.Errorf("%q has a query or a fragment: want the path alone", text)
	case text != "" && strings.ContainsAny(text[:1], ":<"):
		return none, fmt.Errorf("write {%s} for %q", strings.Trim(text, ":<>"), text)
	case hasEscape(text):
		return none, fmt.Errorf("%q has an escape: write the character itself", text)
	case !found && !strings.Contains(text, "}"):
		return segment{before: text}, nil
	case !closed || strings.ContainsAny(before, "}") || strings.ContainsAny(after, "{}"):
		return none, fmt.Errorf("in %q the braces do not match, or there are two names in one segment", text)
	case strings.HasSuffix(name, "..."):
		return none, fmt.Errorf("write ** for %q: a name stands for one segment", text)
	case name == "" || strings.Trim(name, nameLetters) != "":
		return none, fmt.Errorf("in %q the name is %q: want letters, digits, _, - and dots", text, name)
	}
	return segment{before: before, after: after, open: true, name: name}, nil
}

const nameLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."

func hasEscape(text string) bool {
	for i := range len(text) {
		if _, ok := escaped(text[i:]); ok {
			return true
		}
	}
	return false
}
