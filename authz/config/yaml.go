package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxNodes bounds the nodes that are read, so that anchors which contain each other end.
const maxNodes = 100_000

// mistake is an error at a place of the file. Its text begins with line and column.
func mistake(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%d:%d: %s", n.Line, n.Column, fmt.Sprintf(format, args...))
}

// parse returns the only document of a file, nil if the file is empty.
func parse(raw []byte) (root *yaml.Node, err error) {
	for dec := yaml.NewDecoder(bytes.NewReader(raw)); ; {
		var doc yaml.Node
		switch err := dec.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return root, nil
		case err != nil:
			return nil, syntaxError(err, raw)
		}
		switch n := doc.Content[0]; {
		case isNull(n):
		case root == nil:
			root = n
		default:
			return nil, mistake(&doc, "a second document: want one")
		}
	}
}

var (
	syntaxText = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)
	// countedFrom0 matches the errors whose lines the library counts from 0: those of its parser, not those of its scanner.
	countedFrom0 = regexp.MustCompile("^did not find expected (<document start>|node content|'-' indicator|key|',' or)|" +
		"^found (undefined tag handle|incompatible YAML document)")
	// unquoted matches lines with a text that YAML 1.2 allows between { } or [ ] and the library does not: {grpc: :9001}, [a?b].
	unquoted = regexp.MustCompile(`[{[].*\?|[{[](?:.*[,:])?\s*:\S`)
	noAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced`)
)

// syntaxError puts the place before the text of a library error. The library tells the line, unless it is the first, but not
// the column: the place is the beginning of the line's text. Of an anchor it tells only the name.
func syntaxError(err error, raw []byte) error {
	line, text := 1, err.Error()
	if m := syntaxText.FindStringSubmatch(text); m != nil {
		text = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
			if countedFrom0.MatchString(text) {
				line++
			}
		}
	}
	lines := strings.Split(string(raw), "\n")
	if m := noAnchor.FindStringSubmatch(text); m != nil {
		line = 1 + max(0, slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "*"+m[1]) }))
	}
	column := 1
	if line <= len(lines) {
		here := lines[line-1]
		column += len(here) - len(strings.TrimLeft(here, " \t"))
		if strings.HasPrefix(text, "did not find expected") && unquoted.MatchString(here) {
			text += ": put a text with : or ? in quotes"
		}
	}
	return fmt.Errorf("%d:%d: %s", line, column, text)
}

// decoder reads YAML nodes into a struct. It does what the library's own decoder does and is stricter: it refuses unknown
// and repeated fields, and every error has a line, a column and, where a value is wrong, the path of the field.
type decoder struct{ nodes int }

// value reads a node into v. A null node leaves v as it is.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) error {
	if d.nodes++; d.nodes > maxNodes {
		return mistake(n, "the file is too large, or has an anchor that contains itself")
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if isNull(n) {
		return nil
	}
	// A section with a short form is read by its fields if it is written in them.
	isSection := v.Kind() == reflect.Struct && len(fieldNames(v.Type())) > 0
	if text, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok && !(isSection && n.Kind == yaml.MappingNode) {
		if n.Kind != yaml.ScalarNode {
			return mistake(n, "%s: want one value", path)
		}
		return text.UnmarshalText([]byte(n.Value))
	}
	switch v.Kind() {
	case reflect.Struct:
		if n.Kind != yaml.MappingNode {
			return mistake(n, "%swant fields, such as %s: …", prefix(path), fieldNames(v.Type())[0])
		}
		return d.fields(n, v, path)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return mistake(n, "%s: want a list, such as [a, b]", path)
		}
		return d.list(n, v, path)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(n, v.Elem(), path)
	default:
		return scalar(n, v, path)
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) error {
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		if err := d.value(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	return nil
}

// fields reads a mapping. Fields that it merges from others (<<) come first, so that its own take precedence.
func (d *decoder) fields(n *yaml.Node, v reflect.Value, path string) error {
	first := make(map[string]*yaml.Node)
	var own []func() error
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return mistake(key, "want the name of a field")
		}
		if before := first[key.Value]; before != nil {
			return mistake(key, "field %q is already set at %d:%d", key.Value, before.Line, before.Column)
		}
		first[key.Value] = key
		if key.ShortTag() == "!!merge" {
			if err := d.merge(value, v, path); err != nil {
				return err
			}
			continue
		}
		field, ok := fieldOf(v, key.Value)
		if !ok {
			return mistake(key, "unknown field %q", key.Value)
		}
		own = append(own, func() error { return d.value(value, field, prefixDot(path)+key.Value) })
	}
	for _, read := range own {
		if err := read(); err != nil {
			return err
		}
	}
	return nil
}

// merge reads the value of a merge key: one mapping, or a list of them. The first of a list takes precedence.
// https://yaml.org/type/merge.html
func (d *decoder) merge(n *yaml.Node, v reflect.Value, path string) error {
	if n.Kind != yaml.SequenceNode {
		return d.value(n, v, path)
	}
	for i := len(n.Content) - 1; i >= 0; i-- {
		if err := d.value(n.Content[i], v, path); err != nil {
			return err
		}
	}
	return nil
}

// scalar reads a text, a number or a boolean. A text may be written like a number: 1.3 is "1.3".
func scalar(n *yaml.Node, v reflect.Value, path string) error {
	if n.Kind != yaml.ScalarNode {
		return mistake(n, "%s: want one value", path)
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(n.Value)
	case reflect.Bool:
		if n.ShortTag() != "!!bool" || n.Decode(v.Addr().Interface()) != nil { // the library takes yes and on, too
			return mistake(n, "%s: %q: want true or false", path, n.Value)
		}
	default:
		base := 0
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			base = 10 // "010" is ten, as in a variable
		}
		if i, err := strconv.ParseInt(n.Value, base, v.Type().Bits()); err == nil {
			v.SetInt(i)
		} else if n.Decode(v.Addr().Interface()) != nil || hasFraction(n) { // the library takes 0.5 for 0, too
			return mistake(n, "%s: %q: want a number", path, n.Value)
		}
	}
	return nil
}

func hasFraction(n *yaml.Node) bool {
	var f float64
	return n.Decode(&f) != nil || f != math.Trunc(f)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// prefix is the beginning of an error about a field, "" for the whole file.
func prefix(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

func prefixDot(path string) string {
	if path == "" {
		return ""
	}
	return path + "."
}

func fieldNames(t reflect.Type) (names []string) {
	for _, f := range reflect.VisibleFields(t) {
		if name := f.Tag.Get("yaml"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func fieldOf(v reflect.Value, name string) (reflect.Value, bool) {
	for _, f := range reflect.VisibleFields(v.Type()) {
		if name != "" && f.Tag.Get("yaml") == name {
			return v.FieldByIndex(f.Index), true
		}
	}
	return reflect.Value{}, false
}

var pathPart = regexp.MustCompile(`[^.\[\]]+`)

// find returns the node of a field such as tokens.issuers[0], nil if the file does not set it.
func find(n *yaml.Node, path string) *yaml.Node {
	for _, part := range pathPart.FindAllString(path, -1) {
		if n != nil && n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		n = child(n, part)
	}
	return n
}

func child(n *yaml.Node, part string) *yaml.Node {
	switch {
	case n == nil:
	case n.Kind == yaml.SequenceNode:
		if i, err := strconv.Atoi(part); err == nil && i < len(n.Content) {
			return n.Content[i]
		}
	case n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == part {
				return n.Content[i+1]
			}
		}
	}
	return nil
}
