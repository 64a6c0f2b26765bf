package openapi

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// template returns the pattern of an operation's path, without its base path.
func (r *reader) template(p *pathItem, ext extension) (string, bool) {
	if s, has := ext["path"]; has {
		text, _ := s.value.(string)
		if !strings.HasPrefix(text, "/") {
			r.fault(s.at, "path: want a pattern as in routes.yaml, with a slash at the beginning, such as /reports/{id}")
		}
		return text, strings.HasPrefix(text, "/")
	}
	text, err := pattern(p.path)
	if err != nil {
		r.fault(p.at, "path %q: %v, which routes cannot match: give this path, or its operations, a pattern with x-tollkeeper: {path: /...}", p.path, err)
	}
	return text, err == nil
}

// pattern turns a path of OpenAPI into a pattern of routes. It never widens one: {a}-{b} as one name would give the
// rule of the operation, which may be that all may pass, to other paths.
func pattern(path string) (string, error) {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		text, err := segment(part)
		if err != nil {
			return "", err
		}
		parts[i] = text
	}
	return strings.Join(parts, "/"), nil
}

const nameLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."

func segment(text string) (string, error) {
	before, rest, open := strings.Cut(text, "{")
	if !open {
		return literal(text)
	}
	name, after, closed := strings.Cut(rest, "}")
	switch {
	case !closed || strings.Contains(name, "{"):
		return "", fmt.Errorf("in %q a brace is not closed", text)
	case strings.Contains(after, "{"):
		return "", fmt.Errorf("%q has two names", text)
	case name == "" || strings.Trim(name, nameLetters) != "":
		return "", fmt.Errorf("{%s} is a name with other characters than letters, digits, _, - and dots", name)
	}
	before, err := literal(before)
	if err != nil {
		return "", err
	}
	if after, err = literal(after); err != nil {
		return "", err
	}
	return before + "{" + name + "}" + after, nil
}

// literal decodes fixed text. What means something else in a pattern cannot be written there as itself.
func literal(text string) (string, error) {
	decoded, err := url.PathUnescape(text)
	switch {
	case err != nil:
		return "", fmt.Errorf("in %q an escape is broken", text)
	case strings.ContainsAny(decoded, "?#"):
		return "", fmt.Errorf("%q has a query or a fragment", text)
	case strings.ContainsAny(decoded, "/{}*"):
		return "", fmt.Errorf("%q has one of the characters /{}* as itself", text)
	case !utf8.ValidString(decoded) || strings.ContainsFunc(decoded, unicode.IsControl):
		return "", errors.New("it has control characters, or text that is not UTF-8")
	}
	return decoded, nil
}
