package envoy

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// tried is one row of testdata/routes/tried.md.
type tried struct {
	name    string
	cell    string // the request as it is written
	request rawRequest
	served  string // what lenient servers would serve, if they got the request as it was sent
	plain   string // the outcome behind an Envoy that normalises nothing
	shipped string // the outcome behind envoy.yaml
	line    int
}

// triedSection is a part of the table: its rows hold for one setting.
type triedSection struct {
	setting string // of data.tollkeeper, as YAML in one line
	rows    []tried
}

var (
	code    = regexp.MustCompile("`([^`]*)`")
	heading = regexp.MustCompile("^## .*`({.*})`")
)

// readTried reads the table. It fails the test if a row cannot be read.
func readTried(t *testing.T) []triedSection {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "routes", "tried.md"))
	if err != nil {
		t.Fatal(err)
	}
	var out []triedSection
	for i, line := range strings.Split(string(text), "\n") {
		if m := heading.FindStringSubmatch(line); m != nil {
			out = append(out, triedSection{setting: m[1]})
		}
		if len(out) == 0 || !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| what |") {
			continue
		}
		row, err := readRow(line)
		if err != nil {
			t.Fatalf("tried.md:%d: %v", i+1, err)
		}
		row.line = i + 1
		last := &out[len(out)-1]
		last.rows = append(last.rows, row)
	}
	return out
}

// readRow reads | name | `METHOD target` `field: value` ... | served | plain | shipped |. The texts in backquotes are
// written as in Go, so that they can hold any byte.
func readRow(line string) (tried, error) {
	cells := strings.Split(strings.Trim(line, "|"), "|")
	if len(cells) != 5 {
		return tried{}, fmt.Errorf("%d cells, want 5", len(cells))
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	row := tried{name: cells[0], cell: cells[1], served: cells[2], plain: cells[3], shipped: cells[4]}
	hosted := false
	for i, m := range code.FindAllStringSubmatch(cells[1], -1) {
		text, err := strconv.Unquote(`"` + strings.ReplaceAll(m[1], `"`, `\"`) + `"`)
		if err != nil {
			return tried{}, fmt.Errorf("%s: %w", m[1], err)
		}
		if i == 0 {
			row.request.method, row.request.target, _ = strings.Cut(text, " ")
			continue
		}
		name, value, _ := strings.Cut(text, ": ")
		if name == "Host" && !hosted {
			row.request.host, hosted = value, true
		} else {
			row.request.fields = append(row.request.fields, [2]string{name, value})
		}
	}
	if !hosted {
		row.request.host = "api.example.com"
	}
	if row.request.method == "gRPC" {
		row.request.method, row.request.grpc = "POST", true
	}
	if row.request.target == "" {
		return tried{}, fmt.Errorf("no target in %s", cells[1])
	}
	return row, nil
}

// String is the row as it stands in the table.
func (r tried) String() string {
	return fmt.Sprintf("| %s | %s | %s | %s | %s |", r.name, r.cell, r.served, r.plain, r.shipped)
}
