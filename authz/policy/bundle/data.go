package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/util"
)

// document is the content of one data file.
type document struct {
	file string
	root map[string]any
}

// mergeData merges the data files into one tree. Objects merge. Anything else that two files define is a fault.
func mergeData(files []file) (map[string]any, []Fault) {
	merged := map[string]any{}
	var docs []document
	var faults []Fault
	for i := range files {
		if files[i].isRego() {
			continue
		}
		doc, fault := parseData(&files[i])
		if fault != nil {
			faults = append(faults, *fault)
			continue
		}
		if at := merge(merged, doc.root, nil); at != nil {
			faults = append(faults, conflict(doc, docs, at))
			continue
		}
		docs = append(docs, doc)
	}
	return merged, faults
}

// parseData reads one data file and puts it below the names of its directories.
func parseData(f *file) (document, *Fault) {
	var v any
	var err error
	if path.Ext(f.name) == ".json" {
		err = util.UnmarshalJSON(bytes.TrimPrefix(f.bytes, []byte("\xef\xbb\xbf")), &v)
	} else {
		err = util.Unmarshal(f.bytes, &v)
	}
	if err != nil {
		fault := dataFault(f, err)
		return document{}, &fault
	}
	for _, name := range slices.Backward(f.dir) {
		v = map[string]any{name: v}
	}
	root, ok := v.(map[string]any)
	if !ok {
		return document{}, &Fault{File: f.name, Line: 1, Column: 1, Code: faultData, Text: "data must be an object"}
	}
	return document{file: f.name, root: root}, nil
}

// merge copies the values of src into dst. It stops at the first path that both define, and returns it. It never puts an
// object of src into dst, so that later merges do not change the documents.
func merge(dst, src map[string]any, at []string) []string {
	for _, k := range sortedKeys(src) {
		v := src[k]
		here := append(slices.Clone(at), k)
		sub, isObject := v.(map[string]any)
		old, defined := dst[k]
		if !defined && isObject {
			old, defined = map[string]any{}, true
			dst[k] = old
		}
		into, both := old.(map[string]any)
		switch {
		case !defined:
			dst[k] = v
		case isObject && both:
			if at := merge(into, sub, here); at != nil {
				return at
			}
		default:
			return here
		}
	}
	return nil
}

func conflict(doc document, earlier []document, at []string) Fault {
	f := Fault{File: doc.file, Code: faultConflict, Text: "data." + strings.Join(at, ".") + " is defined more than once"}
	for _, d := range earlier {
		if _, ok := lookup(d.root, at); ok {
			f.Text = "data." + strings.Join(at, ".") + " is also defined in " + d.file
		}
	}
	return f
}

// lookup finds the value at a path in nested objects.
func lookup(v any, path []string) (any, bool) {
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[name]; !ok {
			return nil, false
		}
	}
	return v, true
}

// occupied reports whether there is data at a path, or a value on the way to it that is not an object.
func occupied(root map[string]any, path []string) bool {
	for i := range path {
		v, ok := lookup(root, path[:i+1])
		if !ok {
			return false
		}
		if _, isObject := v.(map[string]any); !isObject {
			return true
		}
	}
	return true
}

// setProfile sets data.tollkeeper.profile.
func setProfile(root map[string]any, profile string) *Fault {
	if profile == "" {
		return nil
	}
	ours, ok := root["tollkeeper"].(map[string]any)
	if _, defined := root["tollkeeper"]; defined && !ok {
		return &Fault{Code: faultData, Text: "data.tollkeeper must be an object"}
	}
	if !ok {
		ours = map[string]any{}
		root["tollkeeper"] = ours
	}
	ours["profile"] = profile
	return nil
}

// dataFault finds the place of a syntax error in a data file.
func dataFault(f *file, err error) Fault {
	fault := Fault{File: f.name, Code: faultData, Text: oneLine(err.Error())}
	offset := int64(-1)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		offset = syntax.Offset
	} else if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		offset = int64(len(f.bytes))
	}
	if offset >= 0 {
		before := f.bytes[:min(offset, int64(len(f.bytes)))]
		fault.Line = 1 + bytes.Count(before, []byte("\n"))
		fault.Column = max(1, len(before)-1-bytes.LastIndexByte(before, '\n'))
		return fault
	}
	// The YAML decoder names the line only in its text.
	if m := regexp.MustCompile(`\bline (\d+)\b`).FindStringSubmatch(fault.Text); m != nil {
		fault.Line, _ = strconv.Atoi(m[1])
	}
	return fault
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
