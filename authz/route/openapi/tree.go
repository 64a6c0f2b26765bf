package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file is a document that was read. Its root is nil if it could not be.
type file struct {
	name string
	root *yaml.Node
}

// value is a value of a file. The zero value is missing.
type value struct {
	file *file
	key  *yaml.Node // where it stands: its key, or itself in a list
	node *yaml.Node // never an alias
}

func (v value) missing() bool { return v.node == nil }

// text is the value if it is a text.
func (v value) text() (string, bool) {
	if v.missing() || v.node.Kind != yaml.ScalarNode || v.node.Tag != "!!str" {
		return "", false
	}
	return v.node.Value, true
}

// written is a text, a number or a boolean as it is written.
func (v value) written() (string, bool) {
	if v.missing() || v.node.Kind != yaml.ScalarNode || v.node.Tag == "!!null" {
		return "", false
	}
	return v.node.Value, true
}

func (v value) boolean() (is, ok bool) {
	if v.missing() || v.node.Tag != "!!bool" {
		return false, false
	}
	return is, v.node.Decode(&is) == nil
}

func (v value) number() (json.Number, bool) {
	var n any
	if v.missing() || v.node.Tag != "!!int" && v.node.Tag != "!!float" || v.node.Decode(&n) != nil {
		return "", false
	}
	if f, isFloat := n.(float64); isFloat {
		return json.Number(strconv.FormatFloat(f, 'g', -1, 64)), !math.IsInf(f, 0) && !math.IsNaN(f)
	}
	return json.Number(fmt.Sprint(n)), true
}

// items are the values of a list.
func (v value) items() ([]value, bool) {
	if v.missing() || v.node.Kind != yaml.SequenceNode {
		return nil, false
	}
	out := make([]value, len(v.node.Content))
	for i, n := range v.node.Content {
		out[i] = value{v.file, n, target(n)}
	}
	return out, true
}

// target is the node that an alias stands for.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// object is a value with named fields.
type object struct {
	value
	names  []string // in the order of the file
	fields map[string]value
}

func (o *object) add(name string, v value) {
	o.names = append(o.names, name)
	o.fields[name] = v
}

// Limits on what a document can make us do. Aliases and merged mappings let a small file stand for a very large one.
const (
	maxFields     = 1 << 20
	maxMergeDepth = 20
)

var errTooLarge = errors.New("the mappings that are merged with << are too large, or contain themselves")

// objects makes objects of mappings, each once.
type objects struct {
	made  map[*yaml.Node]*object
	count int
}

// of returns the object, with the fields that it merges from others (<<).
func (s *objects) of(v value) (*object, error) {
	if v.missing() || v.node.Kind != yaml.MappingNode {
		return nil, &lineError{v.line(), fmt.Errorf("%swant an object", v.label())}
	}
	if o := s.made[v.node]; o != nil {
		return o, nil
	}
	o := &object{value: v, fields: make(map[string]value, len(v.node.Content)/2)}
	if err := s.fill(o, v.node, 0); err != nil {
		return nil, err
	}
	s.made[v.node] = o
	return o, nil
}

// fill adds the fields of a mapping. Its own fields take precedence over merged ones.
func (s *objects) fill(o *object, n *yaml.Node, depth int) error {
	s.count += 1 + len(n.Content)/2
	if s.count > maxFields || depth > maxMergeDepth {
		return &lineError{n.Line, errTooLarge}
	}
	own := make(map[string]bool, len(n.Content)/2)
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, at := target(n.Content[i]), n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode:
			return &lineError{at.Line, errors.New("want a text as a key")}
		case key.Tag == "!!merge":
			merged = append(merged, target(n.Content[i+1]))
			continue
		case own[key.Value]:
			return &lineError{at.Line, fmt.Errorf("the key %q is there twice", key.Value)}
		}
		own[key.Value] = true
		if _, exists := o.fields[key.Value]; !exists {
			o.add(key.Value, value{o.file, at, target(n.Content[i+1])})
		}
	}
	for _, m := range merged {
		from := []*yaml.Node{m}
		if m.Kind == yaml.SequenceNode {
			from = m.Content
		}
		for _, f := range from {
			if f = target(f); f.Kind != yaml.MappingNode {
				return &lineError{f.Line, errors.New("<< wants an object, or a list of objects")}
			}
			if err := s.fill(o, f, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// label is the key that the value stands at, as the beginning of a sentence.
func (v value) label() string {
	if v.key == nil || v.key == v.node || v.key.Kind != yaml.ScalarNode {
		return ""
	}
	return v.key.Value + ": "
}

func (v value) line() int {
	if v.key == nil {
		return 0
	}
	return v.key.Line
}

// lineError is an error at a line of a file, 0 if unknown.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return e.err.Error() }

// parse reads a file that holds one JSON or YAML document.
func parse(raw []byte) (*yaml.Node, error) {
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	if json.Valid(raw) {
		r := jsonReader{dec: json.NewDecoder(bytes.NewReader(raw)), raw: raw, line: 1}
		r.dec.UseNumber()
		return r.value()
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		return nil, &lineError{0, errors.New("the file is empty")}
	} else if err != nil {
		return nil, yamlError(err)
	}
	if err := dec.Decode(&more); err == nil {
		return nil, &lineError{more.Line, errors.New("a second document begins here: want one document in a file")}
	} else if !errors.Is(err, io.EOF) {
		return nil, yamlError(err)
	}
	return target(doc.Content[0]), nil
}

// yamlError moves the line from the parser's message to the error.
func yamlError(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, message, _ := strings.Cut(rest, ": ")
		if line, err := strconv.Atoi(number); err == nil {
			return &lineError{line, errors.New(message)}
		}
	}
	return &lineError{0, errors.New(text)}
}

// jsonReader reads valid JSON as YAML nodes with their lines. A YAML parser refuses some JSON, such as tabs as indentation and
// characters that are written as two escapes. Package bundle has a similar one, for columns and not for values: the two packages know
// nothing of each other, and what they have in common is short.
type jsonReader struct {
	dec  *json.Decoder
	raw  []byte
	line int // of the last token
	seen int // bytes whose lines were counted
}

func (r *jsonReader) value() (*yaml.Node, error) {
	token, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	end := int(r.dec.InputOffset())
	r.line += bytes.Count(r.raw[r.seen:end], []byte("\n"))
	r.seen = end
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line}
	switch t := token.(type) {
	case string:
		n.Tag, n.Value = "!!str", t
	case json.Number:
		n.Tag, n.Value = "!!float", t.String()
		if _, err := t.Int64(); err == nil {
			n.Tag = "!!int"
		}
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(t)
	case nil:
		n.Tag = "!!null"
	case json.Delim:
		n.Kind = yaml.MappingNode
		if t == '[' {
			n.Kind = yaml.SequenceNode
		}
		for r.dec.More() {
			item, err := r.value() // the keys of an object are items here, too
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, item)
		}
		_, err = r.dec.Token() // the closing bracket
	}
	return n, err
}
