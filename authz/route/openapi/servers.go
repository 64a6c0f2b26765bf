package openapi

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Limits on the values of server variables, which multiply.
const (
	maxURL       = 2000 // bytes
	maxURLs      = 1000 // of one server, one for each combination of values
	maxBasePaths = 100
)

// basesOf returns the base paths of the nearest list of servers, each once. The hosts play no part.
func (r *reader) basesOf(operation, item, document value) []string {
	list := document
	if !item.missing() {
		list = item
	}
	if !operation.missing() {
		list = operation
	}
	if list.missing() {
		return []string{""}
	}
	if known, done := r.bases[list.node]; done {
		return known
	}
	servers, ok := list.items()
	if !ok {
		r.fault(list, "servers: want a list")
		return nil
	}
	var out []string
	for _, s := range servers {
		for _, base := range r.server(s) {
			if !slices.Contains(out, base) {
				out = append(out, base)
			}
		}
	}
	switch {
	case len(out) > maxBasePaths:
		r.fault(list, "servers: they have more than %d different base paths", maxBasePaths)
		out = nil
	case len(servers) == 0 && list.node == document.node:
		out = []string{""} // as OpenAPI has it
	case len(servers) == 0:
		r.fault(list, "servers: want at least one, or no servers here")
	}
	r.bases[list.node] = out
	return out
}

// server returns the base paths of a server.
func (r *reader) server(at value) (out []string) {
	o := r.object(at)
	if o == nil {
		return nil
	}
	text, isText := o.fields["url"].text()
	if !isText {
		r.fault(at, "a server: want a url")
		return nil
	}
	urls, err := r.expand(text, o.fields["variables"])
	for _, u := range urls {
		var base string
		if base, err = basePath(u); err != nil {
			break
		}
		out = append(out, base)
	}
	if err != nil {
		r.fault(o.fields["url"], "server %q: %v", text, err)
		return nil
	}
	return out
}

// expand puts the values of variables into a URL: each value that is allowed, or the default if any value is.
func (r *reader) expand(text string, variables value) ([]string, error) {
	var defined map[string]value
	if !variables.missing() {
		o := r.object(variables)
		if o == nil {
			return nil, errors.New("variables: want an object")
		}
		defined = o.fields
	}
	urls := []string{""}
	for text != "" {
		fixed, rest, open := strings.Cut(text, "{")
		name, after, closed := strings.Cut(rest, "}")
		values := []string{""}
		if open {
			var err error
			if !closed {
				return nil, errors.New("a brace is not closed")
			}
			if values, err = r.variable(name, defined[name]); err != nil {
				return nil, err
			}
		}
		var longer []string
		for _, u := range urls {
			for _, v := range values {
				longer = append(longer, u+fixed+v)
			}
		}
		if len(longer) > maxURLs || slices.ContainsFunc(longer, func(u string) bool { return len(u) > maxURL }) {
			return nil, fmt.Errorf("its variables make more than %d URLs, or one of more than %d bytes", maxURLs, maxURL)
		}
		urls, text = longer, after
	}
	return urls, nil
}

// variable returns the values of a server variable.
func (r *reader) variable(name string, at value) (out []string, err error) {
	o, err := r.objects.of(at)
	if err != nil {
		return nil, fmt.Errorf("the variable %q is not defined", name)
	}
	if v, has := o.fields["default"]; has {
		text, ok := v.written()
		if !ok {
			return nil, fmt.Errorf("the variable %q: default: want a text", name)
		}
		out = append(out, text)
	}
	if list, has := o.fields["enum"]; has {
		items, ok := list.items()
		for _, item := range items {
			text, isText := item.written()
			ok = ok && isText
			if !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
		if !ok || len(out) > maxURLs {
			return nil, fmt.Errorf("the variable %q: enum: want a list of at most %d texts", name, maxURLs)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the variable %q has neither a default nor an enum", name)
	}
	return out, nil
}

// basePath returns the path of a URL, without a slash at the end, as the beginning of a pattern.
func basePath(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "":
		return "", errors.New("want a URL such as https://api.example.com/v1, or a path such as /v1")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("a server has no query and no fragment")
	case u.Host == "" && !strings.HasPrefix(u.Path, "/"):
		return "", errors.New("it is relative to the place where the document is served, which is not known here: begin it with a slash")
	}
	return plain(strings.TrimSuffix(u.EscapedPath(), "/"))
}

// plain decodes a path without names.
func plain(path string) (string, error) {
	if strings.ContainsAny(path, "{}") {
		return "", errors.New("a brace is not closed")
	}
	return pattern(path)
}
