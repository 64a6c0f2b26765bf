package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits on what is read, for files come from anywhere.
const (
	MaxBytes = 64 << 20 // a configuration dump of a large mesh has some ten megabytes
	maxDepth = 200
	maxNodes = 4 << 20
)

// node is a value of a document with its place. Values that YAML aliases name are shared.
type node struct {
	scalar any      // nil, bool, string or json.Number; only if there are neither keys nor items
	keys   []string // of a map, in order
	at     []int    // the lines of the keys
	items  []*node  // values of a map, or of a list
	isMap  bool
	isList bool
	block  bool // a text that was written with | or >, whose lines are lines of the file
	line   int
}

// find returns the place of a key, -1 if it is not there. snake_case and camelCase are one, as they are to protobuf.
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

// flatten makes names equal that differ in style only.
func flatten(key string) string { return strings.ToLower(strings.ReplaceAll(key, "_", "")) }

// text is the value as a text, "" if it is none.
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

// plain returns the value as encoding/json would, within limits: shared values count each time.
func (n *node) plain(budget *int, depth int) (any, error) {
	if *budget--; *budget < 0 || depth > maxDepth {
		return nil, errors.New("too large or nested too deeply")
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

// syntaxError is a document that cannot be read.
type syntaxError struct {
	line int
	text string
}

func (e *syntaxError) Error() string { return e.text }

// parse reads all documents of a YAML or JSON text.
func parse(raw []byte) ([]*node, error) {
	if len(raw) > MaxBytes {
		return nil, &syntaxError{text: fmt.Sprintf("larger than %d MiB", MaxBytes>>20)}
	}
	if first := bytes.TrimLeft(raw, " \t\r\n"); len(first) > 0 && first[0] == '{' {
		if n, err := parseJSON(raw); err == nil {
			return []*node{n}, nil
		}
		// YAML in braces, or JSON with a fault that the YAML parser names with its line.
	}
	return parseYAML(raw)
}

func parseYAML(raw []byte) (docs []*node, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	for {
		var y yaml.Node
		err := dec.Decode(&y)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return docs, yamlError(err)
		}
		c := converter{seen: make(map[*yaml.Node]*node)}
		n, err := c.convert(&y, 0)
		if err != nil {
			return docs, err
		}
		docs = append(docs, n)
	}
}

// yamlError takes the line out of an error of the parser.
func yamlError(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	out := &syntaxError{text: text}
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, message, _ := strings.Cut(rest, ": ")
		if line, err := strconv.Atoi(number); err == nil {
			out.line, out.text = line, message
		}
	}
	return out
}

// converter makes nodes of YAML nodes.
type converter struct {
	seen map[*yaml.Node]*node // nil while a node is being made
	made int
}

func (c *converter) convert(y *yaml.Node, depth int) (*node, error) {
	if n, ok := c.seen[y]; ok {
		if n == nil {
			return nil, &syntaxError{y.Line, "an anchor that contains itself"}
		}
		return n, nil
	}
	if c.made++; c.made > maxNodes || depth > maxDepth {
		return nil, &syntaxError{y.Line, "too large or nested too deeply"}
	}
	c.seen[y] = nil
	n, err := c.make(y, depth)
	if err != nil {
		return nil, err
	}
	c.seen[y] = n
	return n, nil
}

func (c *converter) make(y *yaml.Node, depth int) (*node, error) {
	n := &node{line: y.Line}
	switch y.Kind {
	case yaml.DocumentNode:
		if len(y.Content) == 0 {
			return n, nil
		}
		return c.convert(y.Content[0], depth)
	case yaml.AliasNode:
		return c.convert(y.Alias, depth)
	case yaml.MappingNode:
		n.isMap = true
		seen := make(map[string]bool)
		for i := 0; i+1 < len(y.Content); i += 2 {
			key := y.Content[i]
			if seen[key.Value] {
				return nil, &syntaxError{key.Line, fmt.Sprintf("the key %q stands here twice", key.Value)}
			}
			seen[key.Value] = true
			v, err := c.convert(y.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			n.keys, n.items, n.at = append(n.keys, key.Value), append(n.items, v), append(n.at, key.Line)
		}
	case yaml.SequenceNode:
		n.isList = true
		for _, item := range y.Content {
			v, err := c.convert(item, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, v)
		}
	default:
		n.scalar, n.block = scalar(y), y.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0
	}
	return n, nil
}

func scalar(y *yaml.Node) any {
	switch y.ShortTag() {
	case "!!null":
		return nil
	case "!!bool", "!!int", "!!float":
		var v any
		if y.Decode(&v) == nil {
			switch v := v.(type) {
			case bool:
				return v
			case float64:
				if math.IsInf(v, 0) || math.IsNaN(v) {
					return y.Value
				}
				return json.Number(strconv.FormatFloat(v, 'g', -1, 64))
			case int, int64, uint64:
				return json.Number(fmt.Sprint(v))
			}
		}
	}
	return y.Value
}

// parseJSON reads one JSON value with the lines of its parts.
func parseJSON(raw []byte) (*node, error) {
	p := jsonParser{dec: json.NewDecoder(bytes.NewReader(raw)), raw: raw, line: 1}
	p.dec.UseNumber()
	n, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &syntaxError{p.line, "something behind the end"}
	}
	return n, nil
}

type jsonParser struct {
	dec  *json.Decoder
	raw  []byte
	at   int // how far lines were counted
	line int
	made int
}

// token returns the next token, and moves the line to where it ends.
func (p *jsonParser) token() (json.Token, error) {
	t, err := p.dec.Token()
	end := int(p.dec.InputOffset())
	p.line += bytes.Count(p.raw[p.at:end], []byte{'\n'})
	p.at = end
	return t, err
}

func (p *jsonParser) value(depth int) (*node, error) {
	t, err := p.token()
	if err != nil {
		return nil, err
	}
	if p.made++; p.made > maxNodes || depth > maxDepth {
		return nil, &syntaxError{p.line, "too large or nested too deeply"}
	}
	n := &node{line: p.line}
	switch t {
	case json.Delim('{'):
		n.isMap = true
		seen := make(map[string]bool)
		for p.dec.More() {
			k, err := p.token()
			if err != nil {
				return nil, err
			}
			key, _ := k.(string)
			if seen[key] {
				return nil, &syntaxError{p.line, fmt.Sprintf("the key %q stands here twice", key)}
			}
			seen[key] = true
			line := p.line
			v, err := p.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.keys, n.items, n.at = append(n.keys, key), append(n.items, v), append(n.at, line)
		}
	case json.Delim('['):
		n.isList = true
		for p.dec.More() {
			v, err := p.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, v)
		}
	default:
		n.scalar = t
		return n, nil
	}
	_, err = p.token() // the closing bracket
	return n, err
}
