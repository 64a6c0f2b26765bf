package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// table prints for people: lines, and columns that are aligned.
type table struct {
	w *tabwriter.Writer
}

// show prints a value as JSON, or for people by what print does.
func (c *cli) show(cmd *cobra.Command, v any, print func(*table)) error {
	out := cmd.OutOrStdout()
	if c.output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	t := newTable(out)
	print(t)
	return t.w.Flush()
}

func newTable(w io.Writer) *table {
	return &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

// row prints one row. Empty cells are shown as "-", control characters as "?".
func (t *table) row(cells ...string) {
	for i, cell := range cells {
		if cells[i] = printable(cell); cell == "" {
			cells[i] = "-"
		}
	}
	_, _ = fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

// field prints one named value, and nothing if it is empty.
func (t *table) field(name, value string) {
	if value != "" {
		_, _ = fmt.Fprintf(t.w, "%s\t%s\n", name, printable(value))
	}
}

func (t *table) line(text string) { _, _ = fmt.Fprintln(t.w, text) }

// printable keeps names that came from outside from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// short cuts a text that somebody chose, for a table. JSON and the view of one thing have all of it.
func short(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05 MST")
}

// meta prints a map as name=value pairs.
func meta(m map[string]any) string {
	if len(m) == 0 {
		return ""
	}
	raw, _ := json.Marshal(m)
	return string(raw)
}
