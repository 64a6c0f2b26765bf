package source

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
		c := converter{done: make(map[*yaml.Node]*node)}
		n, err := c.convert(&y, 0)
		if err != nil {
			return docs, err
		}
		docs = append(docs, n)
	}
}

// yamlError moves the line from the parser's message to the SyntaxError.
func yamlError(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, message, _ := strings.Cut(rest, ": ")
		if line, err := strconv.Atoi(number); err == nil {
			return &SyntaxError{line, message}
		}
	}
	return &SyntaxError{Text: text}
}

// converter turns the parser's nodes into ours.
type converter struct {
	done map[*yaml.Node]*node // nil while a node is being converted
	made int
}

func (c *converter) convert(y *yaml.Node, depth int) (*node, error) {
	if n, ok := c.done[y]; ok {
		if n == nil {
			return nil, &SyntaxError{y.Line, "an anchor contains itself"}
		}
		return n, nil
	}
	if c.made++; c.made > maxNodes || depth > MaxDepth {
		return nil, &SyntaxError{y.Line, errTooLarge.Error()}
	}
	c.done[y] = nil
	n, err := c.value(y, depth)
	if err != nil {
		return nil, err
	}
	c.done[y] = n
	return n, nil
}

func (c *converter) value(y *yaml.Node, depth int) (*node, error) {
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
				return nil, duplicate(key.Line, key.Value)
			}
			seen[key.Value] = true
			v, err := c.convert(y.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			n.add(key.Value, key.Line, v)
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

func duplicate(line int, key string) error {
	return &SyntaxError{line, fmt.Sprintf("the key %q is given twice", key)}
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
