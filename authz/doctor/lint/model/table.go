package model

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// Table is a table of routes of Tollkeeper: data.tollkeeper.routes with the settings beside it, from all data files of a folder
// or of a ConfigMap.
type Table struct {
	Entries          []*Entry
	Paths, Unmatched source.Location
	// Partial: some entries could not be read, such as those for the operations of an OpenAPI document.
	Partial bool
	// Faults are why the server would not use the table, as far as they show without the plans.
	Faults []Fault

	set    string // the folder or ConfigMap
	routes source.Location
}

// TableData is what a table is made of: the JSON values of data.tollkeeper, nil for those that are not there.
type TableData struct {
	File                     string // with the routes
	Routes, Paths, Unmatched any
}

// Operation is an operation of an OpenAPI document, in the form of an entry of a table.
type Operation struct {
	Entry map[string]any
	File  string
	Line  int
}

// TableFault is why the server would not use a table, in the server's own words. At are names and numbers from data.tollkeeper
// on, such as "routes", 3, "match".
type TableFault struct {
	At   []any
	Text string
}

// Entry is a route of a table.
type Entry struct {
	source.Location
	Name           string
	Path           string   // the pattern; "" if only Envoy chooses the route, by its name
	Methods, Hosts []string // nil: all
	pattern        pattern
}

// tableSource is a document with a part of a table.
type tableSource struct {
	source.Location
	set string
}

// isTable reports whether a document is data of policies with a part of a table.
func isTable(at source.Location) bool {
	ours := at.At("tollkeeper")
	return slices.ContainsFunc([]string{"routes", "paths", "unmatched"}, func(k string) bool { return ours.At(k).Exists() })
}

// ofThisMachine is the set of the files that ParseData reads.
const ofThisMachine = "policies of this machine"

// ParseData reads a data file of this machine's policies. It looks only for a table of routes, and skips what it cannot read.
func ParseData(name string, raw []byte) *File {
	f := &File{Name: name}
	docs, err := source.Parse(name, raw)
	if err == nil && len(docs) == 1 && isTable(docs[0].Root()) {
		f.addTable(docs[0].Root(), ofThisMachine)
	}
	return f
}

func (f *File) addTable(at source.Location, set string) {
	f.tables = append(f.tables, tableSource{at.At("tollkeeper"), set})
	f.kinds = append(f.kinds, tableKind)
}

// addTables joins the parts of each table.
func (m *Model) addTables(files []*File) {
	for _, f := range files {
		for _, part := range f.tables {
			m.addPart(part)
		}
	}
	for _, t := range m.Tables {
		t.fold()
		if m.Routable != nil && t.set != ofThisMachine { // the server's own code reads those
			t.judge(m.Routable)
		}
	}
}

// judge adds the faults of a table.
func (t *Table) judge(routable func(TableData) []TableFault) {
	d := TableData{File: t.routes.Document().File}
	for _, part := range []struct {
		at   source.Location
		into *any
	}{{t.routes, &d.Routes}, {t.Paths, &d.Paths}, {t.Unmatched, &d.Unmatched}} {
		if v, err := source.Plain(part.at); err == nil && part.at.Exists() {
			*part.into = v
		}
	}
	for _, f := range routable(d) {
		t.Faults = append(t.Faults, Fault{Location: t.find(f.At), Text: f.Text})
	}
}

// find is the location of a path of names and numbers.
func (t *Table) find(path []any) source.Location {
	at := t.routes
	for i, step := range path {
		switch step := step.(type) {
		case int:
			at = at.Index(step)
		case string:
			switch {
			case i > 0:
				at = at.Child(step)
			case step == "paths":
				at = t.Paths
			case step == "unmatched":
				at = t.Unmatched
			}
		}
	}
	return at
}

// table is the table that a part belongs to.
func (m *Model) table(part tableSource) *Table {
	i := slices.IndexFunc(m.Tables, func(t *Table) bool { return t.set == part.set })
	if i >= 0 {
		return m.Tables[i]
	}
	t := &Table{Paths: part.At("paths"), Unmatched: part.At("unmatched"), set: part.set}
	m.Tables = append(m.Tables, t)
	return t
}

func (m *Model) addPart(part tableSource) {
	t := m.table(part)
	routes, paths, unmatched := part.At("routes"), part.At("paths"), part.At("unmatched")
	if paths.Exists() {
		t.Paths = paths
	}
	if unmatched.Exists() || routes.Exists() && !t.Unmatched.Exists() {
		t.Unmatched = unmatched // beside the routes, where it would be set
	}
	if routes.Exists() || t.routes.Document() == nil {
		t.routes = routes
	}
	for _, item := range routes.Items() {
		if item.At("openapi").Exists() {
			m.addDocument(t, part, item)
		} else {
			t.addEntry(item)
		}
	}
}

// addDocument adds the operations of a document. They have the place of the entry that names it.
func (m *Model) addDocument(t *Table, part tableSource, item source.Location) {
	file := part.Document().File
	onDisk := part.set == ofThisMachine || part.set == dataSet(file) // otherwise it is in a ConfigMap
	if m.Operations == nil || !onDisk {
		t.Partial = true
		return
	}
	operations, ok := m.Operations(file, item.At("openapi").Text())
	t.Partial = t.Partial || !ok
	hosts := item.At("match.hosts")
	for _, o := range operations {
		e := t.addEntry(source.Valued(item, o.Entry))
		if e == nil {
			continue
		}
		if e.Hosts == nil {
			e.Hosts = texts(hosts)
		}
		e.Location = e.Called("route %q (%s:%d)", e.Name, o.File, o.Line)
	}
}

// addEntry adds a route. If it cannot be read, addEntry returns nil.
func (t *Table) addEntry(at source.Location) *Entry {
	match := at.At("match")
	e := &Entry{Path: match.At("path").Text(), Methods: texts(match.At("methods")), Hosts: texts(match.At("hosts"))}
	// The server derives the name of a route that has none in the same way.
	words := slices.DeleteFunc([]string{strings.Join(e.Methods, ","), strings.Join(e.Hosts, ","), e.Path}, func(w string) bool { return w == "" })
	e.Name = cmp.Or(at.At("name").Text(), strings.Join(words, " "))
	e.Location = at.Called("route %q", e.Name)
	var ok bool
	if e.pattern, ok = parsePattern(e.Path); !ok && (match.Exists() || e.Name == "") {
		t.Partial = true
		return nil
	}
	t.Entries = append(t.Entries, e)
	return e
}

func texts(list source.Location) (out []string) {
	for _, item := range list.Items() {
		out = append(out, item.Text())
	}
	return out
}

// Public reports whether the route needs no key.
func (e *Entry) Public() bool { return e.At("public").True() }

// Demands reports whether the route requires or costs anything else than a request that no route names.
func (e *Entry) Demands() bool {
	return slices.ContainsFunc([]string{"scopes", "plans", "environment", "key", "token", "charge"}, func(k string) bool {
		return e.At(k).Exists()
	})
}

// IsMeant reports whether a route is open on purpose.
func (e *Entry) IsMeant(opt *Options) bool { return opt.IsMeant(e.Name) || opt.IsMeant(e.Path) }

// TakesAll reports whether the route takes all requests that no other route takes.
func (e *Entry) TakesAll() bool {
	return len(e.pattern) == 1 && e.pattern[0].kind == rest && e.Methods == nil && e.Hosts == nil
}

// Setting is a setting of paths, or its default.
func (t *Table) Setting(name, otherwise string) Value[string] {
	at := t.Paths.At(name)
	return Value[string]{at, cmp.Or(at.Text(), otherwise)}
}

// UnmatchedIs is what happens to requests that no route names: charge, allow or deny.
func (t *Table) UnmatchedIs() string { return cmp.Or(t.Unmatched.Text(), "charge") }

// fold makes the patterns ready for a table that ignores case.
func (t *Table) fold() {
	if t.Setting("case", "fold").Value != "fold" {
		return
	}
	for _, e := range t.Entries {
		for i := range e.pattern {
			e.pattern[i].before, e.pattern[i].after = strings.ToLower(e.pattern[i].before), strings.ToLower(e.pattern[i].after)
		}
	}
}

// comparesPlainly reports whether the patterns alone say which paths a route takes: an extension that is ignored changes them.
func (t *Table) comparesPlainly() bool { return t.Setting("extension", "exact").Value == "exact" }

// dataSet is the name of the policies that a file belongs to, if only the file is known.
func dataSet(file string) string { return path.Dir(strings.ReplaceAll(file, `\`, "/")) }
