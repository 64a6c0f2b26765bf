package source

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Location is a place in a document. If the value is missing, the line is the line of the nearest parent. The zero Location is in
// no document.
type Location struct {
	doc    *Document
	near   *node  // the value, or its nearest parent
	exists bool   // the value is there
	line   int    // of near, in the document
	path   string // from the root of the document
	object string // the name, for people, of the object that this is part of
	start  int    // the length of the object's own path
}

// Exists reports whether there is a value.
func (l Location) Exists() bool { return l.exists }

// Document is the document that the location is in, nil for the zero Location.
func (l Location) Document() *Document { return l.doc }

// Path is the path from the root of the document.
func (l Location) Path() string { return l.path }

// Object is the name, for people, of the object that the location is part of.
func (l Location) Object() string { return l.object }

// Field is the path from the object.
func (l Location) Field() string { return strings.TrimLeft(l.path[l.start:], ".") }

// Line is the line of the file.
func (l Location) Line() int {
	if l.doc.quoted {
		return l.doc.base
	}
	return l.doc.base + l.line
}

// ID is unique to the location among all files.
func (l Location) ID() string { return l.doc.File + l.path + l.object }

// OnLine returns the location with another line of its document.
func (l Location) OnLine(line int) Location {
	l.line = line
	return l
}

// Nothing returns the location without a value.
func (l Location) Nothing() Location { return Location{doc: l.doc} }

// Called returns the location as the beginning of an object with that name.
func (l Location) Called(format string, args ...any) Location {
	l.object, l.start = fmt.Sprintf(format, args...), len(l.path)
	return l
}

// At returns the location of a field. A path has dots between field names.
func (l Location) At(paths ...string) Location {
	for _, path := range paths {
		for name := range strings.SplitSeq(path, ".") {
			l = l.Child(name)
		}
	}
	return l
}

// Child returns the location of a field whose name may have dots.
func (l Location) Child(name string) Location {
	if l.path != "" {
		l.path += "."
	}
	l.path += name
	l.step(l.field(name))
	return l
}

// Key returns the location of a key of a map. The key may have dots.
func (l Location) Key(name string) Location {
	l.path += "[" + strconv.Quote(name) + "]"
	l.step(l.field(name))
	return l
}

// Index returns the location of an item of a list.
func (l Location) Index(i int) Location {
	l.path += "[" + strconv.Itoa(i) + "]"
	if n := l.value(); n != nil && n.isList && i < len(n.items) {
		l.step(n.items[i], n.items[i].line)
	} else {
		l.step(nil, 0)
	}
	return l
}

func (l *Location) step(n *node, line int) {
	if l.exists = n != nil; l.exists {
		l.near, l.line = n, line
	}
}

// field finds a field. In a TypedStruct, as Istio writes them, the fields of the message are one level deeper.
func (l Location) field(name string) (found *node, line int) {
	n := l.value()
	if i := n.find(name); i >= 0 {
		return n.items[i], n.at[i]
	}
	if strings.HasSuffix(n.get(TypeKey).text(), typedStruct) {
		inner := n.get("value")
		if i := inner.find(name); i >= 0 {
			return inner.items[i], inner.at[i]
		}
	}
	return nil, 0
}

// value is the node at the location, nil if there is none.
func (l Location) value() *node {
	if !l.exists {
		return nil
	}
	return l.near
}

// Text is a scalar as text, "" if there is none.
func (l Location) Text() string { return l.value().text() }

// True reports whether the value is true.
func (l Location) True() bool { return l.Text() == "true" }

// Number is the value as a whole number, 0 if it is not one.
func (l Location) Number() int {
	n, _ := strconv.Atoi(l.Text())
	return n
}

// IsMap reports whether the value is a map.
func (l Location) IsMap() bool { return l.exists && l.near.isMap }

// Keys are the keys of a map.
func (l Location) Keys() []string {
	if !l.IsMap() {
		return nil
	}
	return l.near.keys
}

// Items are the locations in a list.
func (l Location) Items() []Location {
	n := l.value()
	if n == nil || !n.isList {
		return nil
	}
	out := make([]Location, len(n.items))
	for i := range n.items {
		out[i] = l.Index(i)
	}
	return out
}

// Any reports whether something holds for any item of a list.
func (l Location) Any(holds func(Location) bool) bool {
	for _, item := range l.Items() {
		if holds(item) {
			return true
		}
	}
	return false
}

// Has reports whether a list contains any of these texts.
func (l Location) Has(texts ...string) bool {
	return l.Any(func(item Location) bool {
		for _, t := range texts {
			if item.Text() == t {
				return true
			}
		}
		return false
	})
}

// Plain is the value as encoding/json would decode it, with json.Number for numbers.
func Plain(l Location) (any, error) {
	budget := maxNodes
	return l.near.plain(&budget, 0)
}

// Below are the locations of the values in a map or the items of a list.
func (l Location) Below() []Location {
	out := l.Items()
	for _, k := range l.Keys() {
		out = append(out, l.Key(k))
	}
	return out
}

// Find returns the only field of a name at any depth, or the location itself if there are several or none.
func Find(l Location, name string) Location {
	budget := maxNodes
	var found []Location
	var walk func(Location, int)
	walk = func(at Location, depth int) {
		if budget--; budget < 0 || depth > MaxDepth || len(found) > 1 {
			return
		}
		for _, k := range at.Keys() {
			below := at.Child(k)
			if Flatten(k) == Flatten(name) {
				found = append(found, below)
			}
			walk(below, depth+1)
		}
		for _, item := range at.Items() {
			walk(item, depth+1)
		}
	}
	walk(l, 0)
	if len(found) != 1 {
		return l
	}
	return found[0]
}

// Embedded returns the document in a text, nil if the text is not exactly one valid document.
func Embedded(l Location) *Document {
	if !l.exists {
		return nil
	}
	text, ok := l.near.scalar.(string)
	if !ok {
		return nil
	}
	roots, err := parse([]byte(text))
	if err != nil || len(roots) != 1 {
		return nil
	}
	return &Document{File: l.doc.File, Raw: []byte(text), root: roots[0], base: l.Line(), quoted: !l.near.block || l.doc.quoted}
}

// Reference returns the location with a reference to an object as its value.
func Reference(l Location, kind, name string) Location {
	made := &node{isMap: true, line: l.line}
	made.add("kind", l.line, &node{line: l.line, scalar: kind})
	made.add("name", l.line, &node{line: l.line, scalar: name})
	l.near = made
	return l
}

// Holding returns the location with a map as its value that has only one value, at a path of field names.
func Holding(l Location, path []string, value Location) Location {
	made := value.near
	for i := len(path) - 1; i >= 0; i-- {
		outer := &node{isMap: true, line: value.line}
		outer.add(path[i], value.line, made)
		made = outer
	}
	l.near = made
	return l
}

// Valued returns the location with a value that was read elsewhere, in the form that encoding/json decodes.
func Valued(l Location, value any) Location {
	l.near, l.exists = made(value, l.line), true
	return l
}

func made(value any, line int) *node {
	n := &node{line: line}
	switch v := value.(type) {
	case map[string]any:
		n.isMap = true
		for _, k := range slices.Sorted(maps.Keys(v)) {
			n.add(k, line, made(v[k], line))
		}
	case []any:
		n.isList = true
		for _, item := range v {
			n.items = append(n.items, made(item, line))
		}
	default:
		n.scalar = v
	}
	return n
}
