package lint

import (
	"fmt"
	"strconv"
	"strings"
)

// document is one document of a file, or one that stands as a text in another, as in a ConfigMap.
type document struct {
	file string
	base int // lines before its first one
	root *node
	raw  []byte // if it is one by itself
	// textual: the document is a text of another one whose lines are not lines of the file, so that only base is known.
	textual bool
}

// spot is a place in a document, which may be one where something is missing.
type spot struct {
	doc    *document
	near   *node  // the value there, or what comes closest to it
	is     bool   // there is a value there
	seen   int    // the line of what comes closest
	path   string // from the root of the document
	object string // what people call the thing that it is part of
	start  int    // length of the path at the object
}

func (d *document) spot() spot {
	s := spot{doc: d, near: d.root, is: d.root != nil}
	if s.is {
		s.seen = d.root.line
	}
	return s
}

// value is the node there, nil if there is none.
func (s spot) value() *node {
	if !s.is {
		return nil
	}
	return s.near
}

// at goes down by field names. A name that is not there leaves the spot at what would hold it.
func (s spot) at(names ...string) spot {
	for _, name := range names {
		if s.path != "" {
			s.path += "."
		}
		s.path += name
		s.step(s.down(name))
	}
	return s
}

// down finds a field. A typed configuration in a TypedStruct, as Istio writes them, has its fields one level deeper.
func (s spot) down(name string) (found *node, line int) {
	n := s.value()
	if i := n.find(name); i >= 0 {
		return n.items[i], n.at[i]
	}
	if strings.HasSuffix(n.get(typeKey).text(), ".TypedStruct") {
		inner := n.get("value")
		if i := inner.find(name); i >= 0 {
			return inner.items[i], inner.at[i]
		}
	}
	return nil, 0
}

// key goes down by a key that may hold dots.
func (s spot) key(name string) spot {
	s.path += "[" + strconv.Quote(name) + "]"
	s.step(s.down(name))
	return s
}

// index goes down into a list.
func (s spot) index(i int) spot {
	s.path += "[" + strconv.Itoa(i) + "]"
	if n := s.value(); n != nil && n.isList && i < len(n.items) {
		s.step(n.items[i], n.items[i].line)
	} else {
		s.step(nil, 0)
	}
	return s
}

func (s *spot) step(n *node, line int) {
	if s.is = n != nil; s.is {
		s.near, s.seen = n, line
	}
}

// called names the thing that begins here.
func (s spot) called(format string, args ...any) spot {
	s.object, s.start = fmt.Sprintf(format, args...), len(s.path)
	return s
}

// items are the spots of a list, none if it is not one.
func (s spot) items() []spot {
	n := s.value()
	if n == nil || !n.isList {
		return nil
	}
	out := make([]spot, len(n.items))
	for i := range n.items {
		out[i] = s.index(i)
	}
	return out
}

// keys are the keys of a map, none if it is not one.
func (s spot) keys() []string {
	if n := s.value(); n != nil && n.isMap {
		return n.keys
	}
	return nil
}

func (s spot) text() string { return s.value().text() }

// truthy reports whether there is the value true.
func (s spot) truthy() bool { return s.text() == "true" }

func (s spot) line() int {
	if s.doc.textual {
		return s.doc.base
	}
	return s.doc.base + s.seen
}

// field is the path from the object on.
func (s spot) field() string { return strings.TrimLeft(s.path[s.start:], ".") }

// says makes a finding at the spot.
func (s spot) says(format string, args ...any) Finding {
	return Finding{
		File: s.doc.file, Line: s.line(), Object: s.object, Path: s.path, Field: s.field(), Wrong: fmt.Sprintf(format, args...),
	}
}

// inside reads a text that is a document itself. It is nil if there is none, or if it cannot be read.
func (s spot) inside() *document {
	n := s.value()
	text, ok := "", false
	if n != nil {
		text, ok = n.scalar.(string)
	}
	if !ok {
		return nil
	}
	docs, err := parse([]byte(text))
	if err != nil || len(docs) != 1 {
		return nil
	}
	return &document{file: s.doc.file, base: s.line(), root: docs[0], raw: []byte(text), textual: !n.block || s.doc.textual}
}

// untyped is the spot of a typed configuration without its type, as which it is a message.
func (s spot) untyped() spot {
	if n := s.value(); n != nil && n.isMap {
		bare := &node{isMap: true, line: n.line}
		for i, k := range n.keys {
			if k != typeKey {
				bare.keys, bare.items, bare.at = append(bare.keys, k), append(bare.items, n.items[i]), append(bare.at, n.at[i])
			}
		}
		s.near = bare
	}
	return s
}
