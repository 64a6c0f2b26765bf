package openapi

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what is read into the files of testdata")

// from returns the opener of some files.
func from(files map[string]string) func(string) ([]byte, bool) {
	return func(name string) ([]byte, bool) {
		text, found := files[name]
		return []byte(text), found
	}
}

// show writes a result as text, one line for each entry or fault.
func show(operations []Operation, faults []Fault) string {
	var b strings.Builder
	for _, e := range operations {
		rest := maps.Clone(e.Entry)
		match := rest["match"].(map[string]any)
		delete(rest, "name")
		delete(rest, "match")
		fmt.Fprintf(&b, "%s:%d: %s = %v %s", e.File, e.Line, e.Entry["name"], match["methods"], match["path"])
		if len(rest) > 0 {
			text, err := json.Marshal(rest)
			if err != nil {
				text = []byte(err.Error())
			}
			fmt.Fprintf(&b, " %s", text)
		}
		b.WriteByte('\n')
	}
	for _, f := range faults {
		fmt.Fprintf(&b, "fault %s:%d: %s\n", f.File, f.Line, f.Text)
	}
	return b.String()
}

// TestRead_Rules reads the documents of testdata/rules. In each archive, "want" is what is read of the file after the last
// "want", and all files can be referred to.
func TestRead_Rules(t *testing.T) {
	archives, err := filepath.Glob("testdata/rules/*.txtar")
	if err != nil || len(archives) < 7 {
		t.Fatalf("%d archives, %v", len(archives), err)
	}
	for _, name := range archives {
		a, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files := make(map[string]string)
		for _, f := range a.Files {
			files[f.Name] = string(f.Data)
		}
		document := ""
		for i, f := range a.Files {
			if f.Name != "want" {
				if document == "" {
					document = f.Name
				}
				continue
			}
			got := show(Read(document, from(files)))
			if *update {
				a.Files[i].Data = []byte(got)
			} else if got != string(f.Data) {
				t.Errorf("%s: %s is read as\n%s\nwant\n%s", name, document, got, f.Data)
			}
			document = ""
		}
		if *update {
			if err := os.WriteFile(name, txtar.Format(a), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRead_WholeDocuments compares what is read of documents of real size with what stands beside them.
func TestRead_WholeDocuments(t *testing.T) {
	for _, name := range []string{"metering.yaml", "payments.json"} {
		raw, err := os.ReadFile("testdata/documents/" + name)
		if err != nil {
			t.Fatal(err)
		}
		got := show(Read(name, from(map[string]string{name: string(raw)})))
		wanted := "testdata/documents/" + name + ".want"
		if *update {
			if err := os.WriteFile(wanted, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(wanted)
		if err != nil || got != string(want) {
			t.Errorf("%s is read as\n%s\nwant\n%s %v", name, got, want, err)
		}
	}
}
