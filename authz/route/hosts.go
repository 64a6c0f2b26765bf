package route

import (
	"slices"
	"strings"
)

// hosts is a set of hosts: names, and *.example.com for all hosts below example.com. Nil is all hosts.
type hosts []string

// methods is a set of methods. Nil is all methods.
type methods []string

func hostWithin(a, b string) bool {
	return a == b || strings.HasPrefix(b, "*.") && strings.HasSuffix(a, b[1:])
}

func (h hosts) within(o hosts) bool {
	if o == nil {
		return true
	}
	return h != nil && !slices.ContainsFunc(h, func(a string) bool {
		return !slices.ContainsFunc(o, func(b string) bool { return hostWithin(a, b) })
	})
}

func (h hosts) overlap(o hosts) hosts {
	switch {
	case h == nil:
		return o
	case o == nil:
		return h
	}
	out := hosts{}
	for _, a := range h {
		for _, b := range o {
			switch {
			case hostWithin(a, b):
				out = append(out, a)
			case hostWithin(b, a):
				out = append(out, b)
			}
		}
	}
	return out
}

func (m methods) has(method string) bool { return m == nil || slices.Contains(m, method) }

func (m methods) within(o methods) bool {
	if o == nil {
		return true
	}
	return m != nil && !slices.ContainsFunc(m, func(a string) bool { return !slices.Contains(o, a) })
}

func (m methods) overlap(o methods) methods {
	switch {
	case m == nil:
		return o
	case o == nil:
		return m
	}
	out := methods{}
	for _, a := range m {
		if slices.Contains(o, a) {
			out = append(out, a)
		}
	}
	return out
}

// bareHost is a host without its port and without the dot that ends a fully qualified name.
func bareHost(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.Trim(host[i+1:], "0123456789") == "" && !strings.HasSuffix(host[:i], ":") {
		host = host[:i]
	}
	return strings.TrimSuffix(host, ".")
}
