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

var byteOrderMark = []byte("\xef\xbb\xbf")

// dataFile is a file that is not Rego, and the value in it.
type dataFile struct {
	file
	value any
}

// root is the value below the names of the file's directories.
func (f *dataFile) root() any {
	v := f.value
	for _, name := range slices.Backward(f.dir) {
		v = map[string]any{name: v}
	}
	return v
}

// content is what the data files of a source hold.
type content struct {
	merged    map[string]any
	data      []file     // what merged was made of
	documents []dataFile // files that are no data
	warnings  []Fault
}

// readData merges the data files into one tree. Objects merge. Anything else that two files define is a fault.
func readData(files []file) (content, []Fault) {
	all, faults := parseData(files)
	if len(faults) > 0 { // which files are data depends on all of them
		return content{merged: map[string]any{}}, faults
	}
	data, documents, faults := takeDocuments(all)
	c := content{merged: map[string]any{}, documents: documents, warnings: unnamedDocuments(data)}
	var earlier []dataFile
	for i := range data {
		f := &data[i]
		c.data = append(c.data, f.file)
		faults = append(faults, dropped(&f.file)...)
		root, isObject := f.root().(map[string]any)
		if !isObject {
			faults = append(faults, Fault{File: f.name, Line: 1, Column: 1, Code: faultData, Text: "data must be an object"})
			continue
		}
		if at := merge(c.merged, root, nil); at != nil {
			faults = append(faults, conflict(f, earlier, at))
			continue
		}
		earlier = append(earlier, *f)
	}
	return c, faults
}

// parseData reads the files that are not Rego.
func parseData(files []file) (out []dataFile, faults []Fault) {
	for i := range files {
		f := &files[i]
		if f.isRego() {
			continue
		}
		var v any
		var err error
		if path.Ext(f.name) == ".json" {
			err = util.UnmarshalJSON(bytes.TrimPrefix(f.bytes, byteOrderMark), &v)
		} else {
			err = util.Unmarshal(f.bytes, &v)
		}
		if err != nil {
			faults = append(faults, dataFault(f, err))
			continue
		}
		out = append(out, dataFile{file: *f, value: v})
	}
	return out, faults
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

func conflict(f *dataFile, earlier []dataFile, at []string) Fault {
	steps := make([]any, len(at))
	for i, name := range at {
		steps[i] = name
	}
	fault := Fault{Code: faultConflict, Text: "data." + strings.Join(at, ".") + " is defined more than once"}
	fault.File, fault.Line, fault.Column = locate([]file{f.file}, steps)
	for i := range earlier {
		if _, ok := lookup(earlier[i].root(), at); ok {
			other := Fault{}
			other.File, other.Line, _ = locate([]file{earlier[i].file}, steps)
			fault.Text = "data." + strings.Join(at, ".") + " is also defined in " + strings.TrimSuffix(other.String(), ": ")
		}
	}
	return fault
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
	names, ok := root[ours].(map[string]any)
	if _, defined := root[ours]; defined && !ok {
		return &Fault{Code: faultData, Text: "data.tollkeeper must be an object"}
	}
	if !ok {
		names = map[string]any{}
		root[ours] = names
	}
	names["profile"] = profile
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
