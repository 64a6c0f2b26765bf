package source

import (
	"bytes"
	"fmt"
)

// Document is one document of a file, or a document that is embedded as text in another, as in a ConfigMap.
type Document struct {
	File string
	Raw  []byte // its text; nil if the file holds several documents
	root *node
	base int // lines of the file before its first one
	// quoted reports that the document's lines are not lines of the file, so that only base is known.
	quoted bool
}

// SyntaxError says why a text cannot be read. Line is 0 if it is unknown.
type SyntaxError struct {
	Line int
	Text string
}

func (e *SyntaxError) Error() string { return e.Text }

// Parse reads all documents of a YAML or JSON text. The error is a *SyntaxError or an error of encoding/json.
func Parse(file string, raw []byte) ([]*Document, error) {
	roots, err := parse(raw)
	if err != nil {
		return nil, err
	}
	docs := make([]*Document, len(roots))
	for i, root := range roots {
		docs[i] = &Document{File: file, root: root}
	}
	if len(docs) == 1 {
		docs[0].Raw = raw
	}
	return docs, nil
}

func parse(raw []byte) ([]*node, error) {
	if len(raw) > MaxBytes {
		return nil, &SyntaxError{Text: fmt.Sprintf("larger than %d MiB", MaxBytes>>20)}
	}
	if first := bytes.TrimLeft(raw, " \t\r\n"); len(first) > 0 && first[0] == '{' {
		if n, err := parseJSON(raw); err == nil {
			return []*node{n}, nil
		}
		// It is YAML in braces, or JSON with a fault whose line the YAML parser knows.
	}
	return parseYAML(raw)
}

// Empty reports whether there is nothing in the document but comments.
func (d *Document) Empty() bool {
	return d.root == nil || !d.root.isMap && !d.root.isList && d.root.scalar == nil
}

// Root is the location of the whole document.
func (d *Document) Root() Location {
	l := Location{doc: d, near: d.root, exists: d.root != nil}
	if l.exists {
		l.line = d.root.line
	}
	return l
}
