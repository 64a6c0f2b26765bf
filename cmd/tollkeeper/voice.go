package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// Rules for all texts of the command line that people read. voice_test.go tests the rules that a program can check.
//
//   - Standard output has the answer. Standard error has everything else: errors, notes, faults of files. With -o json the
//     answer is JSON. Its members are a stable interface; the texts for people are not.
//   - An error is one line: "tollkeeper: what happened: what to do". It begins in lower case and ends without a full stop. It
//     says what is wanted ("want a date such as 2027-01-31") or missing ("give --key or --account"), not that something is
//     invalid. It never says "failed to", "unable to", "please" or "sorry".
//   - The exit code is 2 for a command line that cannot be understood (usagef) and 1 for any other error. Commands that judge
//     files have codes of their own: see their help.
//   - Text from outside is in quotes (%q). Paths, addresses and our own ids have no quotes, so that they are easy to copy. A
//     command to run comes last, after a colon or "see".
//   - A secret is printed once, by the command that makes it, and never in an error.
//   - A note has the form of an error, and the command continues (note).
//   - A change is confirmed by a sentence with a full stop: "The token is revoked." One object is shown as fields with names in
//     lower case; empty fields are left out. A list is a table with a header in capitals and "-" for an empty cell. Times are
//     local and name their zone.
//   - Help: Short is an imperative without a full stop ("List keys"). Long has full sentences. Every command that runs has an
//     Example that works unchanged. The usage of a flag begins in lower case and ends without a full stop. If the value has a
//     special form, it gives an example ("such as 30d"). No line is longer than 100 columns.
//   - One word for one thing: key, account, plan, limit, token, issuer, subject, decision, policy, rule, directory; server is
//     a running tollkeeper. Create, not make; remedy, not mend.

// helpWidth is the widest line of a help text, in columns.
const helpWidth = 100

// errSaid ends a command that has already printed its faults.
var errSaid = errors.New("said")

// usageError is a command line that cannot be understood.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// exitError ends a command with a code of its own. The command has already printed its messages.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// exitCode prints the error of a command, unless it is already printed, and returns the exit code.
func exitCode(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	if !errors.Is(err, errSaid) {
		_, _ = fmt.Fprintf(stderr, "tollkeeper: %v\n", err)
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// note prints a note: see the rules above.
func note(cmd *cobra.Command, format string, args ...any) {
	_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "tollkeeper: "+format+"\n", args...)
}

// table prints for people: lines, and aligned columns.
type table struct {
	w *tabwriter.Writer
}

// show prints a value as JSON, or for people with print.
func (c *cli) show(cmd *cobra.Command, v any, print func(*table)) error {
	out := cmd.OutOrStdout()
	if c.output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	t := &table{w: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	print(t)
	return t.w.Flush()
}

// row prints one row. An empty cell is printed as "-", a control character as "?".
func (t *table) row(cells ...string) {
	for i, cell := range cells {
		if cells[i] = printable(cell); cell == "" {
			cells[i] = "-"
		}
	}
	_, _ = fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

// field prints one named value, unless it is empty.
func (t *table) field(name, value string) {
	if value != "" {
		_, _ = fmt.Fprintf(t.w, "%s\t%s\n", name, printable(value))
	}
}

func (t *table) line(text string) { _, _ = fmt.Fprintln(t.w, text) }

// sentence prints the confirmation of a change.
func (t *table) sentence(format string, args ...any) { t.line(fmt.Sprintf(format, args...)) }

// printable replaces control characters, because a name from outside could control the terminal with them.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// short shortens a user's text for a table. JSON and the view of one object have the whole text.
func short(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// when formats a time for people, "" for the zero time.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05 MST")
}

// meta formats meta as JSON; "" for none.
func meta(m map[string]any) string {
	if len(m) == 0 {
		return ""
	}
	raw, _ := json.Marshal(m)
	return string(raw)
}
