package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commands returns every command of ours, by its path.
func commands() map[string]*cobra.Command {
	all := make(map[string]*cobra.Command)
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		all[cmd.CommandPath()] = cmd
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
	return all
}

func firstRune(s string) rune { r, _ := utf8.DecodeRuneInString(s); return r }

func TestVoice_Help(t *testing.T) {
	for path, cmd := range commands() {
		if !unicode.IsUpper(firstRune(cmd.Short)) || strings.HasSuffix(cmd.Short, ".") || utf8.RuneCountInString(cmd.Short) > 80 {
			t.Errorf("%s: Short %q: want a phrase in capitals and lower case without a full stop, of 80 columns at most", path, cmd.Short)
		}
		if cmd.Long != "" && !strings.HasSuffix(cmd.Long, ".") {
			t.Errorf("%s: Long does not end with a full stop", path)
		}
		if cmd.Example == "" && !cmd.HasSubCommands() {
			t.Errorf("%s has no Example", path)
		}
		cmd.InitDefaultHelpFlag()
		for line := range strings.Lines(cmd.Long + "\n" + cmd.UsageString()) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); n > helpWidth || strings.Contains(line, "\t") {
				t.Errorf("%s: a line of the help has a tab, or %d columns: %q", path, n, line)
			}
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			first, _, _ := strings.Cut(f.Usage, " ")
			acronym := len(first) > 1 && first == strings.ToUpper(first)
			if !acronym && unicode.IsUpper(firstRune(f.Usage)) || f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: usage %q: want a phrase in lower case without a full stop", path, f.Name, f.Usage)
			}
		})
	}
}

// TestVoice_Examples parses the examples: their commands and flags exist, and the number of arguments is right.
func TestVoice_Examples(t *testing.T) {
	word := regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s'"]+`)
	for path, cmd := range commands() {
		for line := range strings.Lines(cmd.Example) {
			line = strings.TrimSuffix(line, "\n")
			if line == "" || strings.HasPrefix(line, "  # ") {
				continue
			}
			at := strings.Index(line, "tollkeeper ")
			if at < 0 || !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: %q is no example", path, line)
				continue
			}
			text, _, _ := strings.Cut(strings.TrimSuffix(line[at+len("tollkeeper "):], ")"), " < ")
			root := newRoot()
			found, rest, err := root.Find(word.FindAllString(text, -1))
			if err == nil {
				err = found.ParseFlags(rest)
			}
			if err == nil {
				err = found.ValidateArgs(found.Flags().Args())
			}
			if err != nil || path != "tollkeeper" && !strings.HasPrefix(found.CommandPath(), path) {
				t.Errorf("%s: %q does not work: %v", path, line, err)
			}
		}
	}
}

// banned are words that no text of the command line has.
var banned = regexp.MustCompile(`(?i)\b(failed to|unable to|could not|cannot be had|please|sorry|success(fully)?|nobody|somebody|anew|mend|folder)\b`)

// jsonNames are literals that are members of JSON output.
var jsonNames = map[string]bool{"folder": true}

// TestVoice_Sources goes through the text literals of this package.
func TestVoice_Sources(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if text, ok := literal(n); ok && banned.MatchString(text) && !jsonNames[text] {
					t.Errorf("%s: %q has the word %q", set.Position(n.Pos()), text, banned.FindString(text))
				}
			case *ast.CallExpr:
				if fault := faultOfCall(n); fault != "" {
					t.Errorf("%s: %s", set.Position(n.Pos()), fault)
				}
				if _, ok := messageOf(n); ok {
					seen++
				}
			}
			return true
		})
	}
	if seen < 100 {
		t.Errorf("only %d messages were found", seen)
	}
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// messageOf returns the literal of a call that makes a message.
func messageOf(call *ast.CallExpr) (string, bool) {
	at, ok := map[string]int{"usagef": 0, "Errorf": 0, "New": 0, "note": 1, "sentence": 0}[nameOf(call)]
	if !ok || len(call.Args) <= at {
		return "", false
	}
	return literal(call.Args[at])
}

func nameOf(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

// faultOfCall returns what is wrong with the message of a call, "" if nothing is.
func faultOfCall(call *ast.CallExpr) string {
	text, ok := messageOf(call)
	switch {
	case !ok:
	case nameOf(call) == "sentence":
		first := firstRune(strings.TrimSpace(text))
		head, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
		if first != '%' && !unicode.IsUpper(first) || !strings.HasSuffix(head, ".") && !strings.HasSuffix(head, ":") {
			return strconv.Quote(text) + ": want a sentence with a full stop"
		}
	default:
		if unicode.IsUpper(firstRune(text)) || strings.ContainsAny(text, "\t\n") || strings.ContainsAny(text[len(text)-1:], ".!:") {
			return strconv.Quote(text) + ": want one line that begins in lower case and ends without a full stop"
		}
	}
	return ""
}

func TestVoice_ExitCodes(t *testing.T) {
	for want, err := range []error{nil, errSaid, usagef("x")} {
		if got := exitCode(io.Discard, err); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
	if got := exitCode(io.Discard, &exitError{3}); got != 3 {
		t.Errorf("a code of its own: %d", got)
	}
}
