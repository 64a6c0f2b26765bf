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

// The voice of the command line. Every text that a person reads keeps these rules; voice_test.go holds those that a program
// can check.
//
//   - Standard output has the answer, and standard error everything else: errors, notes, faults of files. With -o json the
//     answer is JSON; its members are part of the interface, and the texts for people are not.
//   - An error is one line: "tollkeeper: what happened: what to do". It begins in lower case and ends without a full stop. It
//     says what is wanted ("want a date such as 2027-01-31") or missing ("give --key or --account"), not that something is
//     invalid. It never says "failed to", "unable to", "please" or "sorry".
//   - The exit code is 2 for a command line that cannot be understood (usagef) and 1 for any other error. Commands that judge
//     files have codes of their own, which their help tells.
//   - Text from outside stands in %q. Paths, addresses and our own ids stand bare, for copying. A command to run comes last,
//     after a colon or "see".
//   - A secret is printed once, by the command that makes it, and never in an error.
//   - A note is one line on standard error with the form of an error. The command goes on (note).
//   - A result that is done is a sentence with a full stop: "The token is revoked." One thing is shown as fields with names in
//     lower case, and without the empty ones. A list is a table with a head in capitals, and "-" for an empty cell. Times are
//     local and name their zone.
//   - Help: Short is an imperative without a full stop ("List keys"). Long has full sentences. Every command that runs has an
//     Example that works as it stands. The usage of a flag begins in lower case, ends without a full stop, and gives an
//     example of any form ("such as 30d"). No line is longer than 100 columns.
//   - One word for one thing: key, account, plan, limit, token, issuer, subject, decision, policy, rule, directory; server is
//     a running tollkeeper. Create, not make; remedy, not mend.

// helpWidth is the widest line of a help text, in columns.
const helpWidth = 100

// errSaid ends a command whose faults were printed already.
var errSaid = errors.New("said")

// usageError is a command line that cannot be understood.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// exitError ends a command with a code of its own. What there is to say was printed already.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// exitCode prints the error that a command ended with, unless it was printed already, and returns the code to exit with.
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

// note tells the user something beside the answer.
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

// field prints one named value, and nothing if it is empty.
func (t *table) field(name, value string) {
	if value != "" {
		_, _ = fmt.Fprintf(t.w, "%s\t%s\n", name, printable(value))
	}
}

func (t *table) line(text string) { _, _ = fmt.Fprintln(t.w, text) }

// sentence prints the result of something that was done.
func (t *table) sentence(format string, args ...any) { t.line(fmt.Sprintf(format, args...)) }

// printable replaces control characters, with which a name from outside could steer the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// short cuts a text that a user chose, for a table. JSON, and the view of one thing, have all of it.
func short(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// when formats a time for people; "" for none.
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
