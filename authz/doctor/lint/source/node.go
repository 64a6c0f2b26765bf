package source

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Limits on files, which may be made to exhaust memory.
const (
	MaxBytes = 64 << 20 // the configuration dump of a large mesh has some ten megabytes
	MaxDepth = 200
	maxNodes = 4 << 20
)

var errTooLarge = errors.New("too large or nested too deeply")

// node is a value of a document with its position. YAML aliases share nodes.
type node struct {
	scalar any      // nil, bool, string or json.Number; unset for a map or a list
	keys   []string // of a map, in order
	at     []int    // the lines of the keys
	items  []*node  // values of a map, or of a list
	isMap  bool
	isList bool
	block  bool // a text written with | or >, whose lines are lines of the file
	line   int
}

func (n *node) add(key string, line int, value *node) {
	n.keys, n.at, n.items = append(n.keys, key), append(n.at, line), append(n.items, value)
}

// filtered copies a map, with the keys to keep.
func (n *node) filtered(keep func(key string) bool) *node {
	out := &node{isMap: true, line: n.line}
	for i, k := range n.keys {
		if keep(k) {
			out.add(k, n.at[i], n.items[i])
		}
	}
	return out
}

// find returns the index of a key, or -1. snake_case and camelCase are equal, as they are in protobuf's JSON.
func (n *node) find(key string) int {
	if n == nil || !n.isMap {
		return -1
	}
	if i := slices.Index(n.keys, key); i >= 0 {
		return i
	}
	camel := camelCase(key)
	return slices.IndexFunc(n.keys, func(k string) bool { return camelCase(k) == camel })
}

// get returns the value of a key, nil if there is none.
func (n *node) get(key string) *node {
	if i := n.find(key); i >= 0 {
		return n.items[i]
	}
	return nil
}

func camelCase(key string) string {
	if !strings.Contains(key, "_") {
		return key
	}
	words := strings.Split(key, "_")
	for i, w := range words[1:] {
		if w != "" {
			words[i+1] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, "")
}

// Flatten removes the style of a name, so that snake_case, camelCase and upper case are equal.
func Flatten(key string) string { return strings.ToLower(strings.ReplaceAll(key, "_", "")) }

// text is a scalar as text, "" for null, maps and lists.
func (n *node) text() string {
	if n == nil {
		return ""
	}
	switch v := n.scalar.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

// plain returns the value as encoding/json would. It counts a shared value against the budget each time, so that nested aliases
// of a small file cannot exhaust memory.
func (n *node) plain(budget *int, depth int) (any, error) {
	if *budget--; *budget < 0 || depth > MaxDepth {
		return nil, errTooLarge
	}
	switch {
	case n.isMap:
		m := make(map[string]any, len(n.keys))
		for i, k := range n.keys {
			v, err := n.items[i].plain(budget, depth+1)
			if err != nil {
				return nil, err
			}
			m[k] = v
		}
		return m, nil
	case n.isList:
		l := make([]any, len(n.items))
		for i, item := range n.items {
			v, err := item.plain(budget, depth+1)
			if err != nil {
				return nil, err
			}
			l[i] = v
		}
		return l, nil
	}
	return n.scalar, nil
}
