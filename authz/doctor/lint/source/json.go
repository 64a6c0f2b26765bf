package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// parseJSON reads one JSON value with the lines of its parts.
func parseJSON(raw []byte) (*node, error) {
	p := jsonParser{dec: json.NewDecoder(bytes.NewReader(raw)), raw: raw, line: 1}
	p.dec.UseNumber()
	n, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &SyntaxError{p.line, "there is text after the end"}
	}
	return n, nil
}

type jsonParser struct {
	dec     *json.Decoder
	raw     []byte
	counted int // bytes whose lines were counted
	line    int
	made    int
}

// token returns the next token, and moves the line to where it ends.
func (p *jsonParser) token() (json.Token, error) {
	t, err := p.dec.Token()
	end := int(p.dec.InputOffset())
	p.line += bytes.Count(p.raw[p.counted:end], []byte{'\n'})
	p.counted = end
	return t, err
}

func (p *jsonParser) value(depth int) (*node, error) {
	t, err := p.token()
	if err != nil {
		return nil, err
	}
	if p.made++; p.made > maxNodes || depth > MaxDepth {
		return nil, &SyntaxError{p.line, errTooLarge.Error()}
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
				return nil, duplicate(p.line, key)
			}
			seen[key] = true
			line := p.line
			v, err := p.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.add(key, line, v)
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
