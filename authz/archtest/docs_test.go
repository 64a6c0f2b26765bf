package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocs_PackagesSayWhereToBegin holds that each package of several files has a doc.go, which is what a reader opens first.
func TestDocs_PackagesSayWhereToBegin(t *testing.T) {
	sources := make(map[string]int)
	walk(t, func(path string) {
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			sources[filepath.Dir(path)]++
		}
	})
	for dir, n := range sources {
		if _, err := os.Stat(filepath.Join(dir, "doc.go")); err != nil && n > 1 {
			t.Errorf("%s: write a doc.go that says what the package is for and which files to read first", dir)
		}
	}
}

// link is a link of Markdown to a file of the repository.
var link = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)

// TestDocs_LinksLeadToFiles follows all relative links of all pages.
func TestDocs_LinksLeadToFiles(t *testing.T) {
	pages := 0
	walk(t, func(path string) {
		if !strings.HasSuffix(path, ".md") {
			return
		}
		pages++
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(page), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", path, m[1])
			}
		}
	})
	if pages < 10 {
		t.Errorf("found only %d pages", pages)
	}
}

// walk visits the files that people read: all but what was fetched, built or is there for tests.
func walk(t *testing.T, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case !d.IsDir():
			visit(path)
		case name == "testdata" || name == "bin" || name == "data" || strings.HasPrefix(name, ".") && name != ".github" && path != "../..":
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
