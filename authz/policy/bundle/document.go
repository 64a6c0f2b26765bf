package bundle

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
)

// An entry "openapi: FILE" of data.tollkeeper.routes stands for the operations of a document, which lies among the policies. Such
// a file is read by others and is no data: its names (paths, components) are not those of the policies. The same holds for the
// files that a document refers to with $ref.

// Document returns the content of a document, and its name. The name may be relative to the file that names it, and is
// taken as it is if that is "". It reports false for files that are no documents.
func (b *Bundle) Document(from, name string) (file string, content []byte, ok bool) {
	at := slices.IndexFunc(b.documents, func(f dataFile) bool { return path.Clean(f.name) == relative(from, name) })
	if at < 0 {
		return "", nil, false
	}
	return b.documents[at].name, b.documents[at].bytes, true
}

// relative returns the name of a file that another file names.
func relative(from, name string) string {
	if from == "" {
		return path.Clean(name)
	}
	return path.Join(path.Dir(from), name)
}

// takeDocuments divides files into data and documents. A file that is named and missing is a fault, and so is a document with
// data of ours: to leave it out would drop its routes.
func takeDocuments(files []dataFile) (data, documents []dataFile, faults []Fault) {
	isDocument := make(map[string]bool)
	var add func(name string) bool
	add = func(name string) bool {
		at := slices.IndexFunc(files, func(f dataFile) bool { return path.Clean(f.name) == name })
		if at < 0 || isDocument[name] {
			return at >= 0
		}
		isDocument[name] = true
		for _, ref := range references(files[at].value, nil) {
			add(relative(name, ref))
		}
		return true
	}
	for i := range files {
		f := &files[i]
		for n, name := range namedBy(f) {
			if name == "" || add(relative(f.name, name)) { // an empty name is a fault of the table
				continue
			}
			fault := Fault{Code: faultFile, Text: fmt.Sprintf("there is no file %q among the policies: give a .yaml or .json file, relative to this one", name)}
			fault.File, fault.Line, fault.Column = locate([]file{f.file}, []any{ours, "routes", n, "openapi"})
			faults = append(faults, fault)
		}
	}
	for _, f := range files {
		switch {
		case !isDocument[path.Clean(f.name)]:
			data = append(data, f)
		case hasOurs(&f):
			faults = append(faults, Fault{File: f.name, Line: 1, Column: 1, Code: faultData,
				Text: "this file is named as an OpenAPI document and has data of its own below tollkeeper: divide it into two files"})
		default:
			documents = append(documents, f)
		}
	}
	return data, documents, faults
}

// namedBy returns the documents that the entries of data.tollkeeper.routes in a file name, "" for entries that name none.
func namedBy(f *dataFile) []string {
	found, _ := lookup(f.root(), []string{ours, "routes"})
	entries, _ := found.([]any)
	out := make([]string, len(entries))
	for i, e := range entries {
		fields, _ := e.(map[string]any)
		out[i], _ = fields["openapi"].(string)
	}
	return out
}

// hasOurs reports whether a file has data below tollkeeper. In a directory of that name only the large tables count, because
// a document has names of its own, such as paths.
func hasOurs(f *dataFile) bool {
	if len(f.dir) == 0 {
		_, ok := lookup(f.value, []string{ours})
		return ok
	}
	return slices.ContainsFunc([]string{"routes", "plans", "reasons"}, func(table string) bool {
		_, ok := lookup(f.root(), []string{ours, table})
		return ok
	})
}

// references adds the files that a document refers to.
func references(v any, to []string) []string {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			to = references(item, to)
		}
	case map[string]any:
		for _, name := range sortedKeys(v) {
			ref, isText := v[name].(string)
			if !isText || name != "$ref" {
				to = references(v[name], to)
				continue
			}
			ref, _, _ = strings.Cut(ref, "#")
			if plain, err := url.PathUnescape(ref); err == nil {
				ref = plain
			}
			if ref != "" {
				to = append(to, ref)
			}
		}
	}
	return to
}

// unnamedDocuments warns about data that is an OpenAPI document.
func unnamedDocuments(data []dataFile) []Fault {
	var out []Fault
	for _, f := range data {
		fields, _ := f.value.(map[string]any)
		if version, isText := fields["openapi"].(string); isText && strings.HasPrefix(version, "3.") {
			w := Fault{File: f.name, Code: warnDocument, Text: "this OpenAPI document is read as data, because no route names it: write - openapi: " +
				path.Base(f.name) + " below tollkeeper.routes"}
			_, w.Line, w.Column = locate([]file{{name: f.name, bytes: f.bytes}}, []any{"openapi"})
			out = append(out, w)
		}
	}
	return out
}
