package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxDepth is how deep the JSON of a token may nest. No meaningful claim comes near it.
const maxDepth = 16

// decodeObject reads one JSON object. It refuses what two readers might read differently: a name that occurs twice (as RFC
// 7519 section 4 allows), bytes that are not UTF-8, and anything after the object. Numbers become json.Number.
func decodeObject(raw []byte) (map[string]any, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	first, err := dec.Token()
	if err != nil {
		return nil, errors.New("is not JSON")
	}
	if first != json.Delim('{') {
		return nil, errors.New("is not a JSON object")
	}
	out, err := object(dec, 1)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("has something after its JSON object")
	}
	return out, nil
}

// object reads the rest of an object whose opening brace was read.
func object(dec *json.Decoder, depth int) (map[string]any, error) {
	out := make(map[string]any)
	for {
		t, err := dec.Token()
		if err != nil {
			return nil, errors.New("is not JSON")
		}
		name, ok := t.(string)
		if !ok {
			return out, nil // the closing brace: the decoder accepts nothing else here
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("has the name %.64q twice", name)
		}
		if out[name], err = value(dec, depth); err != nil {
			return nil, err
		}
	}
}

func value(dec *json.Decoder, depth int) (any, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, errors.New("is not JSON")
	}
	open, ok := t.(json.Delim)
	switch {
	case !ok:
		return t, nil
	case depth >= maxDepth:
		return nil, fmt.Errorf("nests deeper than %d", maxDepth)
	case open == '{':
		return object(dec, depth+1)
	}
	out := []any{}
	for dec.More() {
		v, err := value(dec, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	if _, err := dec.Token(); err != nil { // the closing bracket
		return nil, errors.New("is not JSON")
	}
	return out, nil
}
