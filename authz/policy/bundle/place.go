package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Locate returns where a value of the base data is written: the name of a file, a line and a column. The path has the names
// and the numbers from the root, such as "tollkeeper", "routes", 3. If the value does not exist, or is not written in a file,
// the place is that of the nearest value above it. The line and the column are 0 if even that is only the name of a directory,
// and the file is "" if no file has anything on the path.
//
// It reads the files again, because it is only asked about faults.
func (b *Bundle) Locate(path ...any) (file string, line, column int) { return locate(b.files, path) }

// locate returns where a path is written in one of the data files.
func locate(files []file, path []any) (name string, line, column int) {
	best := 0
	for i := range files {
		if at, depth := place(&files[i], path); depth > best {
			best, name, line, column = depth, files[i].name, at.Line, at.Column
		}
	}
	return name, line, column
}

// place follows a path in a data file, and returns the last node that it meets and how much of the path leads there. The names
// of the file's directories are part of the path and have no node.
func place(f *file, path []any) (at yaml.Node, depth int) {
	for _, name := range f.dir {
		if depth == len(path) || path[depth] != name {
			return at, depth
		}
		depth++
	}
	roots, err := trees(f)
	if err != nil || len(roots) == 0 {
		return at, depth
	}
	for value := roots[0]; depth < len(path); depth++ {
		here, next := child(value, path[depth])
		if here == nil {
			break
		}
		at, value = *here, next
	}
	return at, depth
}

// child returns the value of a name or a number, and the node where that is written: the key, or the item itself.
func child(n *yaml.Node, step any) (at, value *yaml.Node) {
	n = target(n)
	switch step := step.(type) {
	case int:
		if n.Kind == yaml.SequenceNode && step >= 0 && step < len(n.Content) {
			return n.Content[step], n.Content[step]
		}
	case string:
		if n.Kind == yaml.MappingNode {
			return entry(n, step)
		}
	}
	return nil, nil
}

// entry finds a key of a mapping. Its own keys take precedence over those that it merges from other mappings (<<).
func entry(n *yaml.Node, name string) (key, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if !isMerge(n.Content[i]) && keyText(n.Content[i]) == name {
			key, value = n.Content[i], n.Content[i+1]
		}
	}
	for i := 0; key == nil && i+1 < len(n.Content); i += 2 {
		if !isMerge(n.Content[i]) {
			continue
		}
		from := []*yaml.Node{n.Content[i+1]}
		if list := target(from[0]); list.Kind == yaml.SequenceNode {
			from = list.Content
		}
		for _, m := range from {
			if key == nil {
				key, value = child(m, name)
			}
		}
	}
	return key, value
}

// target is the node that an alias stands for.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isMerge(key *yaml.Node) bool { return key.Kind == yaml.ScalarNode && key.Tag == "!!merge" }

// keyText is a key as OPA's decoder names it in the data: 0x1 and "1" are the same name.
func keyText(key *yaml.Node) string {
	key = target(key)
	var v any
	if key.Tag == "!!str" || key.Tag == "!!timestamp" || key.Decode(&v) != nil {
		return key.Value
	}
	if number, isFloat := v.(float64); isFloat {
		switch text := strconv.FormatFloat(number, 'g', -1, 32); text {
		case "+Inf", "-Inf", "NaN":
			return strings.ToLower(strings.NewReplacer("+", ".", "-", "-.", "NaN", ".nan").Replace(text))
		default:
			return text
		}
	}
	return fmt.Sprint(v)
}

// trees returns the documents of a data file that are not empty. Only the first one is data.
func trees(f *file) ([]*yaml.Node, error) {
	raw := bytes.TrimPrefix(f.bytes, byteOrderMark)
	if json.Valid(raw) {
		r := jsonReader{dec: json.NewDecoder(bytes.NewReader(raw)), raw: raw, line: 1}
		r.dec.UseNumber() // 1e400 is JSON, too
		root, err := r.value()
		return []*yaml.Node{root}, err
	}
	var out []*yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(raw)); ; {
		var n yaml.Node
		switch err := dec.Decode(&n); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, err
		case len(n.Content) > 0 && (len(out) == 0 || n.Content[0].ShortTag() != "!!null"):
			out = append(out, n.Content[0])
		}
	}
}

// jsonReader reads valid JSON as YAML nodes. A YAML parser cannot: it refuses tabs as indentation.
type jsonReader struct {
	dec  *json.Decoder
	raw  []byte
	line int // of the byte at seen
	from int // where that line begins
	seen int
}

// next reads a token, and returns a node at its place.
func (r *jsonReader) next() (json.Token, *yaml.Node, error) {
	start := int(r.dec.InputOffset())
	token, err := r.dec.Token()
	if err != nil {
		return nil, nil, err
	}
	for bytes.IndexByte([]byte(" \t\r\n,:"), r.raw[start]) >= 0 {
		start++
	}
	skipped := r.raw[r.seen:start]
	r.line += bytes.Count(skipped, []byte("\n"))
	if last := bytes.LastIndexByte(skipped, '\n'); last >= 0 {
		r.from = r.seen + last + 1
	}
	r.seen = start
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line, Column: 1 + utf8.RuneCount(r.raw[r.from:start])}
	if text, isText := token.(string); isText {
		n.Tag, n.Value = "!!str", text
	}
	return token, n, nil
}

func (r *jsonReader) value() (*yaml.Node, error) {
	token, n, err := r.next()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		n.Kind = yaml.MappingNode
	case json.Delim('['):
		n.Kind = yaml.SequenceNode
	default:
		return n, nil
	}
	for r.dec.More() {
		item, err := r.value() // the keys of an object are values here, too
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, item)
	}
	_, _, err = r.next() // the closing bracket
	return n, err
}
